"""A silo's policy and approvals in a run between silos: refused by name, pending, approved."""

import tomllib
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from coterie import Mistake
from coterie.core.digests import digest
from coterie.experiment.silos.begin import Waits, request_fields
from coterie.experiment.silos.deal_to_silos import deal_to_silos
from coterie.experiment.silos.join_silos import JoinOptions, join_silos
from coterie.experiment.silos.judge_run import ask_approval, ask_facts_approval, judge_by_policy
from coterie.experiment.silos.load_own_rows import load_own_rows
from coterie.experiment.silos.silo_file import load_silo_file
from coterie.experiment.silos.silo_settings import settings_to_send
from coterie.silos.approvals import Approvals
from coterie.silos.message import Message, read_message, write_message
from coterie.silos.policy import DEFAULT_POLICY, Policy, parse_policy
from tests.experiment.silos.exchange import MACHINE, settings_of
from tests.experiment.silos.test_plans import digits
from tests.experiment.silos.test_rounds import run, serve
from tests.silos.test_policy import RUN

FACTS = replace(RUN, leaves=(), message_bytes=0)


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


TABLE = "age,ward,sick\n1.0,a,no\n2.0,b,yes\n3.0,a,no\n4.0,b,yes\n5.0,a,no\n6.0,b,yes\n"


def guards(policy: Policy, approvals: Approvals) -> dict[str, Any]:
    return {
        "judge": judge_by_policy(policy, "run"),
        "release": ask_facts_approval(policy, approvals, "run"),
        "approve": ask_approval(policy, approvals, "run"),
    }


def test_facts_wait_for_a_person_and_then_the_run_does(tmp_path: Path) -> None:
    """North holds its facts back until somebody has read them. South sends its own once, and is not asked again."""
    settings = settings_of(tmp_path, data={"source": "csv", "path": "x", "label_column": "sick"}, model={"name": "mlp"})
    files = {}
    for silo in ("north", "south"):
        (tmp_path / silo).mkdir()
        (tmp_path / silo / "rows.csv").write_text(TABLE)
        files[silo] = tmp_path / silo / "silo.toml"
        files[silo].write_text(f'name = "{silo}"\n[data]\nsource = "csv"\npath = "rows.csv"\nlabel_column = "sick"\n')
    policy = parse_policy(tomllib.loads(DEFAULT_POLICY) | {"approve_facts": True})
    approvals = Approvals(tmp_path / "approvals")
    carrier = serve({"north": files["north"]}, tmp_path / "silos", **guards(policy, approvals))
    carrier.silos |= serve({"south": files["south"]}, tmp_path / "silos").silos
    options = JoinOptions()

    def join() -> Any:
        return join_silos(settings, carrier, list(files), MACHINE, tmp_path / "run", options)

    for _ in range(2):
        with pytest.raises(Waits, match="silo north: the facts for the run run wait for approval"):
            join()
    assert carrier.requests == [("south", "facts"), ("north", "facts"), ("north", "facts")]
    (waiting,) = approvals.all()
    shown = waiting.description.sentences()
    assert "column ward: its categories: a, b" in shown
    assert "column age: numbers" in shown
    assert any(
        "5 rows to train on, 1 to test on; rows to train on of each class: no 2, yes 3" in each for each in shown
    )
    approvals.approve("run", by="Dr. Ada")

    with pytest.raises(Waits, match="silo north: the run run waits for approval"):
        join()
    run_itself, of_facts = approvals.all()
    assert (run_itself.state, run_itself.description.facts, of_facts.state) == ("pending", (), "approved")
    approvals.approve("run", by="Dr. Ada")
    assert run(join().plan)[-1].reached == 2

    def ask(kind: str) -> Message:
        request = {**request_fields("run", kind), "tables": settings_to_send(settings)}
        return read_message(carrier.silos["north"](write_message(request)))

    assert ask("facts").text("kind") == "facts"
    approvals.revoke(of_facts.description.digest)
    for kind in ("facts", "sums"):
        assert "facts may not leave for this run: the run run was revoked" in ask(kind).text("why")


def test_other_rows_are_other_facts(tmp_path: Path) -> None:
    """Rows that somebody changed while the facts waited are shown, and wait, again."""
    facts = replace(FACTS, facts=("client north: 2 rows",))
    approvals = Approvals(tmp_path)
    for _ in range(2):
        assert "the facts for the run heart wait" in str(approvals.begin(facts, "new runs"))
    approvals.approve("heart")
    assert approvals.begin(facts, "new runs") is None
    assert "wait" in str(approvals.begin(replace(facts, facts=("client north: 3 rows",)), "new runs"))
    approvals.revoke("heart")
    assert "was revoked" in str(approvals.begin(facts, "new runs"))


def test_always_asks_for_the_facts_of_each_run(tmp_path: Path) -> None:
    """One run may ask twice: for facts, and for the sums that follow."""
    approvals, facts = Approvals(tmp_path), replace(FACTS, facts=("client north: 2 rows",))
    approvals.begin(facts, "always")
    approvals.approve("heart")
    for _ in range(2):
        assert approvals.begin(facts, "always") is None
    assert "the facts for the run again wait" in str(approvals.begin(replace(facts, run="again"), "always"))


def test_a_name_means_what_waits_or_else_the_run(tmp_path: Path) -> None:
    approvals, facts = Approvals(tmp_path), replace(FACTS, digest=digest(b"facts"), facts=("client north: 2 rows",))
    approvals.begin(facts, "new runs")
    approvals.approve("heart")
    approvals.begin(RUN, "new runs")
    assert approvals.approve("heart").description == RUN
    assert approvals.revoke("heart").description == RUN


@pytest.mark.parametrize(
    ("privacy", "words"),
    [
        ({"unit": "example", "epsilon": 1.0, "delta": 0.9}, "the run's delta is 0.9, and max_epsilon means nothing"),
        ({"unit": "example", "epsilon": 1.0, "delta": 1e-5}, ""),
        ({"unit": "example", "epsilon": 1.0}, ""),
        ({"unit": "client", "epsilon": 1.0, "delta": 0.2}, "the run's delta is 0.2, and max_epsilon means nothing"),
        ({"unit": "client", "epsilon": 1.0, "delta": 0.1}, ""),
        ({"unit": "example", "epsilon": 1.0, "noise": "rng_seed"}, 'is "rng_seed", which the coordinator knows'),
    ],
)
def test_a_small_epsilon_that_means_nothing_is_refused(tmp_path: Path, privacy: dict[str, Any], words: str) -> None:
    """An epsilon of 1 at delta 0.9 needs next to no noise, and noise from a known seed hides nothing."""
    settings = settings_of(tmp_path, **digits(partition="iid"))
    file = next(iter(deal_to_silos(settings, ["north", "south"], tmp_path / "dealt").files.values()))
    policy = parse_policy(tomllib.loads(DEFAULT_POLICY) | {"max_epsilon": 8.0})
    tables, rows = {**settings_to_send(settings), "privacy": privacy}, load_own_rows(load_silo_file(file))
    found = judge_by_policy(policy, "run")(tables, rows)
    assert len(found) == bool(words)
    assert words in "".join(found)


def test_what_the_policy_does_not_name_is_refused_before_it_is_imported(tmp_path: Path) -> None:
    settings = settings_of(tmp_path, **digits(partition="iid"))
    files = deal_to_silos(settings, ["north", "south"], tmp_path / "dealt").files
    (tmp_path / "policy.toml").write_text(DEFAULT_POLICY.replace('algorithms = ["any"]', 'algorithms = ["fbn"]'))
    judge = judge_by_policy(Policy.load(tmp_path / "policy.toml"), "run")
    with pytest.raises(Mistake, match='the run needs "fedavg", and the policy allows fbn'):
        join_silos(settings, serve(files, tmp_path / "silos", judge=judge), list(files), MACHINE, tmp_path / "run")
