"""A silo's own table may hold classes, flags or numbers to predict: the weights and measures are the simulation's."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from coterie.core.errors import Mistake
from coterie.experiment.build_experiment import build_experiment
from coterie.experiment.silos.check_silo import Expected, check_silo
from coterie.experiment.silos.join_silos import join_silos
from coterie.experiment.silos.load_own_rows import load_own_rows
from coterie.experiment.silos.silo_file import load_silo_file
from coterie.experiment.silos.silo_settings import settings_to_send, task_in
from tests.experiment.silos.exchange import MACHINE, settings_of
from tests.experiment.silos.test_rounds import assert_same_weights, run, serve

WARDS = ("a", "b", "c")
HEADER = "ward,age,kind,dose,stay,sick,tired,test"
LABELS: dict[str, tuple[dict[str, Any], dict[str, Any], list[str]]] = {
    "regression": ({"label_column": "dose"}, {"kind": "regression"}, ["r2"]),
    "several numbers": ({"label_columns": ["dose", "stay"]}, {"kind": "regression"}, []),
    "multilabel": ({"label_columns": ["sick", "tired"]}, {"kind": "multilabel"}, ["f1"]),
    "binary": ({"label_column": "sick"}, {"kind": "binary"}, ["auroc"]),
}


def hospitals(folder: Path, columns: dict[str, Any]) -> tuple[dict[str, Any], dict[str, Path]]:
    """The rows of three wards in one file for a simulation, and in one for each ward; return both."""
    rng = np.random.default_rng(0)
    rows = [
        f"{WARDS[k % 3]},{rng.normal(50, 9):.1f},{'xyz'[k % 4 % 3]},{rng.normal():.3f},{rng.integers(1, 9)},"
        f"{rng.integers(0, 2)},{rng.integers(0, 2)},{int(k % 5 == 0)}"
        for k in range(90)
    ]
    (folder / "all.csv").write_text("\n".join([HEADER, *rows]))
    shared = {"feature_columns": ["age", "kind"], "test_column": "test", **columns}
    files = {}
    for ward in WARDS:
        (folder / f"{ward}.csv").write_text("\n".join([HEADER, *(row for row in rows if row.startswith(ward))]))
        given = {"source": "csv", "path": f"{ward}.csv", **shared}
        lines = [f"{key} = {json.dumps(value)}" for key, value in given.items()]
        files[ward] = folder / f"{ward}.toml"
        files[ward].write_text("\n".join([f'name = "{ward}"', "[data]", *lines]))
    return {"source": "csv", "path": str(folder / "all.csv"), "client_column": "ward", **shared}, files


@pytest.mark.parametrize("kind", LABELS)
def test_the_labels_of_a_silo_s_table_are_those_of_the_simulation(kind: str, tmp_path: Path) -> None:
    """Standardised by sums, so that labels are read in every step before the first round, and by restarted silos."""
    columns, task, metrics = LABELS[kind]
    data, files = hospitals(tmp_path, columns)
    evaluate = {"clients": True, **({"metrics": metrics} if metrics else {})}
    settings = settings_of(tmp_path, data=data, task=task, evaluate=evaluate)
    simulated = run(build_experiment(settings, MACHINE).plan)[-1]
    carrier = serve(files, tmp_path / "silos")
    for ward in WARDS:  # each request meets a new process
        carrier.silos[ward] = lambda request, ward=ward: serve({ward: files[ward]}, tmp_path / "silos").silos[ward](
            request
        )
    experiment = join_silos(settings, carrier, list(files), MACHINE, tmp_path / "run")
    deployed = run(experiment.plan)[-1]
    assert_same_weights(simulated, deployed, "a")
    assert deployed.test_loss == pytest.approx(simulated.test_loss)
    for name, value in simulated.measures.items():
        if name.startswith("test_"):
            assert deployed.measures[name] == pytest.approx(value, abs=1e-6), name
    each, wanted = deployed.measures["own_tests"], simulated.measures["own_tests"]
    for ward in WARDS:
        assert each[ward]["test_loss"] == pytest.approx(wanted[ward]["test_loss"])


def test_a_check_reads_numbers_once_it_knows_the_task(tmp_path: Path) -> None:
    data, files = hospitals(tmp_path, {"label_column": "dose"})
    settings = settings_of(tmp_path, data=data, task={"kind": "regression"})
    file = load_silo_file(files["a"])
    alone = {each.what: each for each in check_silo(file, tmp_path, MACHINE)}
    assert not alone["data"].ok
    assert "check with --experiment FILE, which says so" in alone["data"].sentence
    found = check_silo(file, tmp_path, MACHINE, Expected(tables=settings_to_send(settings)))
    assert all(each.ok for each in found), found


def test_silos_with_labels_of_two_forms_are_refused_by_name(tmp_path: Path) -> None:
    data, files = hospitals(tmp_path, {"label_columns": ["sick", "tired"]})
    files["b"].write_text(files["b"].read_text().replace('["sick", "tired"]', '["sick", "stay", "dose"]'))
    settings = settings_of(tmp_path, data=data, task={"kind": "regression"})
    with pytest.raises(Mistake, match="b: its form of labels is"):
        join_silos(settings, serve(files, tmp_path / "silos"), list(files), MACHINE, tmp_path / "run")


@pytest.mark.parametrize("tables", [None, [], {}, {"task": 3}, {"task": {"kind": 3}}, {"task": {"kind": "magic"}}])
def test_a_task_that_a_stranger_invents_is_none(tables: Any) -> None:
    assert task_in(tables) is None


def test_the_task_changes_nothing_but_the_labels(tmp_path: Path) -> None:
    """The rows' digest, by which a silo knows that they are the same, is that of the cells."""
    _, files = hospitals(tmp_path, {"label_column": "stay"})
    file = load_silo_file(files["a"])
    classes, numbers = load_own_rows(file), load_own_rows(file, task="regression")
    assert classes.digest == numbers.digest
    assert classes.facts().labels.classes is not None
    assert numbers.facts().labels.kind == "other"
