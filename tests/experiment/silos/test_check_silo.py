"""What a silo checks before a run, and settings that mean nothing between silos."""

import time
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from coterie.core.errors import Mistake
from coterie.experiment.silos.check_silo import Expected, check_silo
from coterie.experiment.silos.deal_to_silos import deal_to_silos
from coterie.experiment.silos.join_silos import join_silos
from coterie.experiment.silos.serve_silo import ServeSilo
from coterie.experiment.silos.silo_file import load_silo_file
from coterie.experiment.silos.silo_settings import refuse_simulation, settings_to_send
from coterie.silos.in_process import InProcess
from tests.experiment.silos.exchange import MACHINE, settings_of
from tests.experiment.silos.test_facts import NORTH, silo_file


def test_a_silo_in_order(tmp_path: Path) -> None:
    """By hand: age, age missing, kind=x, kind=y are 4 features; the mlp has 4 4 + 4 + 4 2 + 2 numbers of 4 bytes.

    The silo has one class alone, and others must have another one.
    """
    file = silo_file(tmp_path, "north", NORTH)
    tables = settings_to_send(settings_of(tmp_path, data={"source": "csv", "path": "elsewhere.csv"}))
    findings = check_silo(file, tmp_path / "runs", MACHINE, Expected(tables, now=time.time(), max_bytes=100))
    found = {finding.what: finding for finding in findings}
    assert [finding.what for finding in findings if not finding.ok] == ["message"]
    assert "3 rows to train on, of 1 client" in found["data"].sentence
    assert found["shape"].sentence == "examples have the shape [4], and the model mlp takes them"
    assert list(found) == ["clock", "device", "data", "test rows", "shape", "disk", "message"]
    again = check_silo(file, tmp_path / "runs", MACHINE, Expected(tables, max_bytes=4 * (4 * 4 + 4 + 4 * 2 + 2)))
    assert all(finding.ok for finding in again)


@pytest.mark.parametrize("weights", ["start.safetensors", {"mlp": "start.safetensors"}])
def test_weights_that_the_coordinator_will_send_are_no_fault(tmp_path: Path, weights: Any) -> None:
    """The silo has no such file, and need not: the model is tried with weights of its own."""
    pretrain = {"weights": weights, "head": "fresh", "freeze": "all but head", "lr_scale": {"3": 0.5}}
    given = settings_of(tmp_path, data={"source": "csv", "path": "elsewhere.csv"}, pretrain=pretrain)
    found = check_silo(silo_file(tmp_path, "north", NORTH), tmp_path, MACHINE, Expected(settings_to_send(given)))
    assert [(each.what, each.sentence) for each in found if not each.ok] == []


def test_every_fault_is_a_sentence(tmp_path: Path) -> None:
    file = silo_file(tmp_path, "north", NORTH)
    (tmp_path / "north.csv").unlink()
    findings = check_silo(replace(file, device="cuda"), tmp_path, MACHINE, Expected(now=time.time() - 3600))
    found = {finding.what: finding.sentence for finding in findings if not finding.ok}
    assert found.keys() == {"clock", "device", "data"}
    assert "3,600 seconds ahead of the coordinator's" in found["clock"]
    assert "engine.device" in found["device"]
    assert "north.csv" in found["data"]


@pytest.mark.parametrize(
    ("tables", "sentence"),
    [
        ({"attack": {"name": "sign_flip", "num_clients": 1}}, "attack.name"),
        ({"faults": {"drop": 0.1}}, "\\[faults\\]"),
        ({"engine": {"workers": 2}}, "engine.workers"),
        ({"algorithm": {"name": "fedh2l", "lr": 0.1, "seed_examples_per_client": 2}}, "seed_set.source"),
    ],
)
def test_what_only_a_simulation_has_is_refused(tmp_path: Path, tables: dict[str, Any], sentence: str) -> None:
    with pytest.raises(Mistake, match=sentence):
        refuse_simulation(settings_of(tmp_path, data={"source": "digits"}, **tables))


def test_a_silo_may_have_a_model_of_its_own(tmp_path: Path) -> None:
    tables = {"data": {"source": "digits", "partition": "iid", "num_clients": 2}, "model": {"name": "logistic"}}
    tables |= {"algorithm": {"name": "fedh2l", "lr": 0.1}, "seed_set": {"source": "digits", "examples": 12}}
    settings = settings_of(tmp_path, **tables)
    files = deal_to_silos(settings, ["north", "south"], tmp_path / "dealt").files
    files["south"].write_text(files["south"].read_text() + '[model]\nname = "mlp"\n')
    silos = {s: ServeSilo(load_silo_file(f), tmp_path / s, MACHINE) for s, f in files.items()}
    experiment = join_silos(settings, InProcess(silos), list(files), MACHINE, tmp_path / "run")
    assert [experiment.model_of(client) for client in ("0", "1")] == ["logistic", "mlp"]


def test_no_silo_chooses_what_the_coordinator_imports(tmp_path: Path) -> None:
    settings = settings_of(tmp_path, data={"source": "digits", "partition": "iid", "num_clients": 2})
    files = deal_to_silos(settings, ["north", "south"], tmp_path / "dealt").files
    (tmp_path / "dealt" / "south" / "theirs.py").write_text("def net(in_shape, num_classes): ...\n")
    files["south"].write_text(files["south"].read_text() + '[model]\nname = "theirs:net"\n')
    silos = {s: ServeSilo(load_silo_file(f), tmp_path / s, MACHINE) for s, f in files.items()}
    with pytest.raises(Mistake, match="silo south: its own model is theirs:net, which is the name of code"):
        join_silos(settings, InProcess(silos), list(files), MACHINE, tmp_path / "run")


def test_a_silos_own_model_beside_options_or_feddf_is_refused(tmp_path: Path) -> None:
    """FedDF averages one model; and options of the file's one model would be meant for which of several?"""
    tables = {"data": {"source": "digits", "partition": "iid", "num_clients": 2}}
    tables |= {"seed_set": {"source": "digits", "examples": 12}}
    for algorithm, sentence in (("fedh2l", "gives them no options; leave it out"), ("feddf", "one model for all")):
        model = {"name": "mlp", "hidden": [5]} if algorithm == "fedh2l" else {"name": "mlp"}
        settings = settings_of(tmp_path, **tables, model=model, algorithm={"name": algorithm, "lr": 0.1})
        files = deal_to_silos(settings, ["north", "south"], tmp_path / algorithm).files
        files["south"].write_text(files["south"].read_text() + '[model]\nname = "logistic"\n')
        silos = {s: ServeSilo(load_silo_file(f), tmp_path / algorithm / "at" / s, MACHINE) for s, f in files.items()}
        with pytest.raises(Mistake, match=sentence):
            join_silos(settings, InProcess(silos), list(files), MACHINE, tmp_path / "run")
