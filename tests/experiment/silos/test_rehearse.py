"""Rehearsals in one process: the run folder, the comparison with the simulation, policies and audit logs."""

import json
import os
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from coterie.core.errors import Mistake
from coterie.experiment.silos.rehearse import Venue, policy_for
from coterie.experiment.silos.silo_folder import POLICY_FILE, load_silo_folder
from coterie.silos.verify_log import verify
from coterie.track import RunFolder
from tests.experiment.silos.exchange import settings_of
from tests.experiment.silos.rehearsals import rehearse_here
from tests.experiment.silos.test_plans import digits

REAL = Path(os.environ.get("COTERIE_DATA", "/nowhere"))


def lines(path: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in path.read_text().splitlines()]


def test_four_hospitals_end_with_the_weights_of_the_simulation(tmp_path: Path) -> None:
    if not (REAL / "heart_disease").is_dir():
        pytest.skip("the data are not here")
    done = rehearse_here(settings_of(tmp_path, data={"source": "heart_disease"}, rounds=3), tmp_path / "run")
    assert done.comparison.sentence() == "the weights are the simulation's, bit for bit"
    assert sorted(done.hosts) == sorted(done.hosts.values()) == ["cleveland", "hungarian", "switzerland", "va"]


CASES: dict[str, dict[str, Any]] = {
    "fedavg": {},
    "scaffold": {"algorithm": {"name": "scaffold", "lr": 0.1}},
    "fbn": {
        "model": {"name": "resnet20", "width": 2},
        "algorithm": {"name": "fbn", "lr": 0.1, "local_steps": 2},
    },
    "secure sum": {"privacy": {"secure_sum": True, "secure_threshold": 0.5}},
    "models of their own": {
        "model": {"names": ["logistic", "mlp"]},
        "seed_set": {"source": "digits", "examples": 20},
        "algorithm": {"name": "fedh2l", "lr": 0.1},
    },
}


@pytest.mark.parametrize("name", CASES)
def test_a_rehearsal_leaves_a_run_folder_like_any_other(tmp_path: Path, name: str) -> None:
    out = tmp_path / "run"
    done = rehearse_here(settings_of(tmp_path, **{**digits(partition="iid"), **CASES[name]}), out, 2)
    assert done.comparison.sentence() == "the weights are the simulation's, bit for bit"
    assert [record["round"] for record in lines(out / "rounds.jsonl")] == [1, 2]
    own = name == "models of their own"
    weights = [f"clients/{client}.safetensors" for client in done.hosts] if own else ["model.safetensors"]
    for file in ["config.toml", "summary.json", "clients.json", "report.html", "checksums.json", *weights]:
        assert (out / file).is_file(), file
    assert done.outcome.summary["test_accuracy"] is not None
    assert set(done.hosts.values()) == {"silo-1", "silo-2"}
    for silo in ("silo-1", "silo-2"):
        found = verify(load_silo_folder(out / "silos" / silo).audit_log)
        assert found.broken is None
        kinds = [(entry["what"], entry["kind"]) for entry in found.entries if entry["what"] in ("arrived", "left")]
        assert kinds[:2] == [("arrived", "facts"), ("left", "facts")]
        assert kinds.count(("left", "work")) == 2


def test_a_run_that_the_policy_refuses_leaves_nothing(tmp_path: Path) -> None:
    def forbid(venue: Venue) -> None:
        path = venue.silo("silo-2") / POLICY_FILE
        path.write_text(path.read_text().replace('algorithms = ["any"]', 'algorithms = ["fbn"]'))

    settings = settings_of(tmp_path, **digits(partition="iid"))
    with pytest.raises(Mistake, match='silo-2: the silo\'s policy refuses this run: the run needs "fedavg"'):
        rehearse_here(settings, tmp_path / "run", 2, prepare=forbid)
    assert not (tmp_path / "run").exists()


def test_code_of_a_users_own_is_named_in_the_policy_of_a_rehearsal(tmp_path: Path) -> None:
    settings = replace(settings_of(tmp_path, **digits()), model={"name": "mine.nets:small"})
    assert 'models = ["any", "mine.nets:small"]' in policy_for(settings)
    assert 'approve = "never"' in policy_for(settings)


def test_a_rehearsal_that_was_over_is_left_alone(tmp_path: Path) -> None:
    settings = settings_of(tmp_path, **digits(partition="iid"))
    first = rehearse_here(settings, tmp_path / "run", 2)
    with pytest.raises(Mistake, match="holds a run already; continue it with --resume"):
        rehearse_here(settings, tmp_path / "run", 2)
    again = rehearse_here(settings, tmp_path / "run", 2, resume=True)
    assert not again.outcome.ran
    assert (again.hosts, again.comparison) == (first.hosts, first.comparison)
    assert RunFolder(tmp_path / "run").read_summary() == first.outcome.summary
