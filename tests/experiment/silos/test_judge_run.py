"""A silo's policy and approvals in a run between silos: refused by name, pending, approved."""

from pathlib import Path

import pytest

from coterie import Mistake
from coterie.experiment.silos.deal_to_silos import deal_to_silos
from coterie.experiment.silos.join_silos import join_silos
from coterie.experiment.silos.judge_run import ask_approval, judge_by_policy
from coterie.silos.approvals import Approvals
from coterie.silos.policy import DEFAULT_POLICY, Policy
from tests.experiment.silos.exchange import MACHINE, settings_of
from tests.experiment.silos.test_plans import digits
from tests.experiment.silos.test_rounds import run, serve


def test_a_run_waits_until_a_person_approves_what_would_leave(tmp_path: Path) -> None:
    settings = settings_of(tmp_path, **digits(partition="iid"))
    files = deal_to_silos(settings, ["north", "south"], tmp_path / "dealt").files
    (tmp_path / "policy.toml").write_text(DEFAULT_POLICY)
    policy, approvals = Policy.load(tmp_path / "policy.toml"), Approvals(tmp_path / "approvals")
    options = {"judge": judge_by_policy(policy, "run"), "approve": ask_approval(policy, approvals, "run")}
    for _ in range(2):
        with pytest.raises(Mistake, match="the run run waits for approval at this silo: coterie deploy approve"):
            join_silos(settings, serve(files, tmp_path / "silos", **options), list(files), MACHINE, tmp_path / "run")
    (waiting,) = approvals.all()
    (delta,) = waiting.description.leaves
    assert (waiting.state, waiting.description.algorithm, delta.part) == ("pending", "fedavg", "delta")
    approvals.approve("run", by="Dr. Ada")
    carrier = serve(files, tmp_path / "silos", **options)
    last = run(join_silos(settings, carrier, list(files), MACHINE, tmp_path / "run").plan)[-1]
    assert last.bytes_up == delta.bytes * last.reached


def test_what_the_policy_does_not_name_is_refused_before_it_is_imported(tmp_path: Path) -> None:
    settings = settings_of(tmp_path, **digits(partition="iid"))
    files = deal_to_silos(settings, ["north", "south"], tmp_path / "dealt").files
    (tmp_path / "policy.toml").write_text(DEFAULT_POLICY.replace('algorithms = ["any"]', 'algorithms = ["fbn"]'))
    judge = judge_by_policy(Policy.load(tmp_path / "policy.toml"), "run")
    with pytest.raises(Mistake, match='the run needs "fedavg", and the policy allows fbn'):
        join_silos(settings, serve(files, tmp_path / "silos", judge=judge), list(files), MACHINE, tmp_path / "run")
