"""Facts, standardisation, plans and rounds over an in-process carrier: the weights of the simulation, bit for bit."""

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import safetensors.torch
import torch

from coterie.core.errors import Mistake
from coterie.experiment.build_experiment import Experiment, build_experiment
from coterie.experiment.run import run as run_here
from coterie.experiment.run_recorder import RunRecorder, SilentRun
from coterie.experiment.settings import Settings
from coterie.experiment.shared_run import carry_out
from coterie.experiment.silos.deal_to_silos import deal_to_silos
from coterie.experiment.silos.deployed_run import DEPLOYMENT_FILE, read_run_name, run_deployed
from coterie.experiment.silos.join_silos import AGREED_FILE, JoinOptions, join_silos, read_agreed
from coterie.experiment.silos.serve_silo import ServeSilo
from coterie.experiment.silos.silo_file import load_silo_file
from coterie.loop.federate import federate
from coterie.loop.plan import Plan, Resume, Round
from coterie.models.adapter_files import write_adapter
from coterie.processes.team import ALONE
from coterie.silos.coordinate import save_at_silos
from coterie.silos.in_process import InProcess
from coterie.silos.message import read_message
from coterie.silos.silo import model_path
from coterie.track import RunFolder
from tests.experiment.silos.exchange import MACHINE, settings_of
from tests.experiment.silos.test_plans import REAL, digits, table_file


def serve(files: Mapping[str, Path], folder: Path, **options: Any) -> InProcess:
    """Silos in this process, each with a folder of its own."""
    return InProcess({s: ServeSilo(load_silo_file(f), folder / s, MACHINE, **options) for s, f in files.items()})


def run(plan: Plan) -> list[Round]:
    return list(federate(plan, warn=lambda text: None))


def assert_same_weights(one: Round, other: Round, client: str) -> None:
    ours, theirs = one.weights(client), other.weights(client)
    assert ours.keys() == theirs.keys()
    assert all(torch.equal(ours[name], theirs[name]) for name in ours)


def both(folder: Path, settings: Settings, number: int | None = None) -> tuple[list[Round], list[Round], Experiment]:
    """The rounds of the simulation, and of as many silos, by default one for each client."""
    simulation = build_experiment(settings, MACHINE)
    silos = [f"silo{k}" for k in range(number or len(simulation.plan.ids))]
    dealing = deal_to_silos(settings, silos, folder / "dealt")
    experiment = join_silos(settings, serve(dealing.files, folder / "silos"), silos, MACHINE, folder / "run")
    return run(simulation.plan), run(experiment.plan), experiment


CASES: dict[str, dict[str, Any]] = {
    "heart_disease": {"data": {"source": "heart_disease"}},
    "scaffold": {**digits(partition="shards"), "algorithm": {"name": "scaffold", "lr": 0.1}},
    "several epochs": {**digits(partition="iid"), "algorithm": {"name": "fedavg", "lr": 0.1, "local_epochs": 2}},
    "cohort": {**digits(partition="iid"), "cohort": {"size": 2}},
    "codec": {**digits(partition="iid"), "communication": {"codec": "top_k", "share": 0.1}},
    "adapters": {**digits(partition="iid"), "model": {"name": "mlp", "adapter": "lora", "aggregate": "exact"}},
    "three models": {
        **digits(partition="iid"),
        "seed_set": {"source": "digits", "examples": 20},
        "model": {"names": ["mlp", "logistic", "2nn"]},
        "algorithm": {"name": "fedh2l", "lr": 0.1},
        "evaluate": {"clients": True},
    },
    "models by client": {
        **digits(partition="iid"),
        "seed_set": {"source": "digits", "examples": 20},
        "model": {"clients": {"0": "mlp", "1": "logistic", "2": "2nn", "3": "mlp", "4": "logistic", "5": "mlp"}},
        "algorithm": {"name": "fedmd", "lr": 0.1},
    },
    "distillation": {
        **digits(partition="iid"),
        "seed_set": {"source": "digits", "examples": 20},
        "algorithm": {"name": "feddf", "lr": 0.1},
    },
    "seed set": {
        **digits(partition="iid"),
        "seed_set": {"source": "digits", "examples": 20},
        "algorithm": {"name": "fedmd", "lr": 0.1},
    },
}


@pytest.mark.parametrize("name", CASES)
def test_the_weights_are_those_of_the_simulation(tmp_path: Path, name: str) -> None:
    if name == "heart_disease" and not (REAL / "heart_disease").is_dir():
        pytest.skip("the data are not here")
    simulated, deployed, experiment = both(tmp_path, settings_of(tmp_path, **CASES[name]))
    assert all(not round.dropped for round in deployed)
    own = experiment.plan.algorithm.traits.own_models
    if not own:
        assert_same_weights(simulated[-1], deployed[-1], experiment.plan.ids[0])
        assert deployed[-1].test_accuracy == pytest.approx(simulated[-1].test_accuracy, abs=1e-6)
        assert deployed[-1].test_loss == pytest.approx(simulated[-1].test_loss, rel=1e-5)
    else:
        save_at_silos(deployed[-1])
        for client in experiment.plan.ids:
            silo = tmp_path / "silos" / f"silo{client}"
            saved = safetensors.torch.load_file(model_path(silo, client))
            simulated_weights = simulated[-1].weights(client)
            assert all(torch.equal(saved[key], simulated_weights[key]) for key in simulated_weights)
    assert deployed[-1].train_loss == simulated[-1].train_loss


@pytest.mark.parametrize("algorithm", ["fedh2l", "fedmd"])
def test_a_silo_brings_its_own_model_and_weights(tmp_path: Path, algorithm: str) -> None:
    """The file has one mlp, with the options that it has anyway; silo1's is another, from weights that never travel.

    The simulation that says the same names a model for each client, and the weights of silo1's.
    """
    tables = {**digits(partition="iid", num_clients=3), "seed_set": {"source": "digits", "examples": 20}}
    tables |= {"algorithm": {"name": algorithm, "lr": 0.1}, "evaluate": {"clients": True}}
    settings = settings_of(tmp_path, **tables, model={"name": "mlp"})
    files = deal_to_silos(settings, ["silo0", "silo1", "silo2"], tmp_path / "dealt").files
    simulated = settings_of(tmp_path, **tables, model={"clients": {"0": "mlp", "1": "logistic", "2": "mlp"}})
    plan = build_experiment(simulated, MACHINE).plan
    own = plan.tasks[plan.architecture("1")].state_dict(plan.initial[plan.architecture("1")])
    safetensors.torch.save_file({name: x + 0.25 for name, x in own.items()}, files["silo1"].parent / "own.safetensors")
    more = '[model]\nname = "logistic"\nweights = "own.safetensors"\n'
    files["silo1"].write_text(files["silo1"].read_text() + more)
    start = {"logistic": str(files["silo1"].parent / "own.safetensors")}
    simulated = replace(simulated, pretrain=replace(simulated.pretrain, weights=start))
    *_, there = run(build_experiment(simulated, MACHINE).plan)
    deployed = join_silos(settings, serve(files, tmp_path / "silos"), list(files), MACHINE, tmp_path / "run")
    *_, here = run(deployed.plan)
    save_at_silos(here)
    for client in ("0", "1", "2"):
        saved = safetensors.torch.load_file(model_path(tmp_path / "silos" / f"silo{client}", client))
        assert saved.keys() == there.weights(client).keys()
        assert all(torch.equal(saved[name], x) for name, x in there.weights(client).items())
    assert here.train_loss == there.train_loss


def test_hospitals_with_tables_of_their_own(tmp_path: Path) -> None:
    """One csv, read whole by the simulation, and cut by its wards among three silos, give the same weights.

    The test rows are marked in a column, since the silos could not take those of the simulation's own split.
    """
    lines = table_file(tmp_path).read_text().splitlines()
    marked = [lines[0] + ",test", *(f"{line},{int(k % 5 == 0)}" for k, line in enumerate(lines[1:]))]
    (tmp_path / "table.csv").write_text("\n".join(marked))
    columns = {"label_column": "answer", "test_column": "test"}
    whole = {"source": "csv", "path": str(tmp_path / "table.csv"), "client_column": "ward", **columns}
    settings = settings_of(tmp_path, data=whole, evaluate={"clients": True, "metrics": ["auroc"]})
    files = {}
    for ward in ("c", "a", "b"):
        (tmp_path / f"{ward}.csv").write_text("\n".join([marked[0], *(x for x in marked[1:] if x.startswith(ward))]))
        files[ward] = tmp_path / f"{ward}.toml"
        files[ward].write_text(
            f'name = "{ward}"\n[data]\nsource = "csv"\npath = "{ward}.csv"\nlabel_column = "answer"\n'
            'test_column = "test"\nfeature_columns = ["age", "kind", "dose"]\n'
        )
    simulation = build_experiment(settings, MACHINE)
    experiment = join_silos(settings, serve(files, tmp_path / "silos"), list(files), MACHINE, tmp_path / "run")
    assert list(experiment.plan.ids) == ["a", "b", "c"]
    assert experiment.inputs.to_record() == simulation.inputs.to_record()
    simulated, deployed = run(simulation.plan)[-1], run(experiment.plan)[-1]
    assert_same_weights(simulated, deployed, "a")
    assert deployed.measures["own_test_accuracy"] == pytest.approx(simulated.measures["own_test_accuracy"], abs=1e-6)
    each, wanted = deployed.measures["own_tests"], simulated.measures["own_tests"]
    assert list(each) == ["a", "b", "c"]
    for ward, found in each.items():  # each hospital's own area under the curve, with its interval
        assert found.pop("intervals")["test_auroc"] == pytest.approx(wanted[ward].pop("intervals")["test_auroc"])
        assert found.pop("undefined", None) == wanted[ward].pop("undefined", None)
        assert found == pytest.approx(wanted[ward])
    for name in ("own_test_auroc", "domain_test_accuracy", "domain_test_accuracy_worst"):
        assert deployed.measures[name] == pytest.approx(simulated.measures[name]), name
    assert deployed.measures["accuracy_matrix"] == [pytest.approx(simulated.measures["accuracy_matrix"][0])]


def test_the_coordinators_weights_are_where_the_silos_start(tmp_path: Path) -> None:
    """Frozen weights are in no broadcast, so each silo has to be sent them before the first round."""
    plain = settings_of(tmp_path, **digits(partition="iid"))
    first = build_experiment(plain, MACHINE)
    state = {name: value + 0.25 for name, value in first.models["model"].state_dict().items()}
    safetensors.torch.save_file(state, tmp_path / "start.safetensors")
    pretrain = replace(plain.pretrain, weights=str(tmp_path / "start.safetensors"), freeze="all but head")
    simulated, deployed, experiment = both(tmp_path, replace(plain, pretrain=pretrain), 2)
    assert_same_weights(simulated[-1], deployed[-1], experiment.plan.ids[0])
    assert simulated[-1].train_loss == deployed[-1].train_loss
    assert experiment.starts
    begin = (tmp_path / "silos" / "silo0" / "begin").read_bytes()
    assert str(tmp_path).encode() not in begin  # no place of the coordinator's


def test_a_run_folder_is_written_as_for_a_simulation(tmp_path: Path) -> None:
    """The folder of a run between silos has the files of the simulation's, and the same model."""
    settings = settings_of(tmp_path, **digits(partition="iid"))
    simulated = tmp_path / "simulated"
    run_here(settings, simulated)
    names = ["north", "south"]
    files = deal_to_silos(settings, names, tmp_path / "dealt").files
    folder = RunFolder(tmp_path / "run")
    folder.path.mkdir()
    experiment = join_silos(settings, serve(files, tmp_path / "silos"), names, MACHINE, folder.path)
    carry_out(ALONE, RunRecorder(experiment, folder, SilentRun()))
    made = {path.name for path in simulated.iterdir()} - {".lock"}
    assert {path.name for path in folder.path.iterdir()} == made | {AGREED_FILE}
    for name in ("model.safetensors", "clients.json", "inputs.json"):
        assert (folder.path / name).read_bytes() == (simulated / name).read_bytes(), name


def test_what_an_attempt_agreed_on_that_never_began_does_not_count(tmp_path: Path) -> None:
    """The coordinator is killed before its run begins, and then started without one of the silos."""
    settings = settings_of(tmp_path, **digits(partition="iid"))
    files = deal_to_silos(settings, ["north", "south"], tmp_path / "dealt").files
    join_silos(
        settings,
        serve(files, tmp_path / "first", run="run-1"),
        list(files),
        MACHINE,
        tmp_path / "run",
        JoinOptions("run-1"),
    )
    (tmp_path / "run" / DEPLOYMENT_FILE).write_text('{"run": "run-1"}')

    def serve_north(request: bytes) -> bytes:
        run = read_message(request, len(request)).text("run")
        return ServeSilo(load_silo_file(files["north"]), tmp_path / "silos" / run, MACHINE, run)(request)

    run_deployed(settings, tmp_path / "run", InProcess({"north": serve_north}), ["north"])
    merged, _ = read_agreed(tmp_path / "run" / AGREED_FILE)
    assert {client.silo for client in merged.clients} == {"north"}
    assert read_run_name(tmp_path / "run") != "run-1"


def test_both_ends_may_be_started_again(tmp_path: Path) -> None:
    settings = settings_of(tmp_path, **digits(partition="iid"), algorithm={"name": "scaffold", "lr": 0.1})
    simulated = run(build_experiment(settings, MACHINE).plan)
    names = ["north", "south"]
    files = deal_to_silos(settings, names, tmp_path / "dealt").files
    experiment = join_silos(settings, serve(files, tmp_path / "silos"), names, MACHINE, tmp_path / "run")
    rounds = federate(experiment.plan, warn=lambda text: None)
    first = next(rounds)
    carrier = serve(files, tmp_path / "silos")  # new processes, the same folders
    again = join_silos(settings, carrier, names, MACHINE, tmp_path / "run")
    assert [kind for _, kind in carrier.requests] == ["begin", "begin"]
    (last,) = federate(again.plan, Resume(1, first.state, first.store), warn=lambda text: None)
    assert_same_weights(simulated[-1], last, experiment.plan.ids[0])


def test_a_silo_whose_data_have_changed_says_so(tmp_path: Path) -> None:
    settings = settings_of(tmp_path, **digits(partition="iid"))
    files = deal_to_silos(settings, ["north", "south"], tmp_path / "dealt").files
    join_silos(settings, serve(files, tmp_path / "silos"), list(files), MACHINE, tmp_path / "run")
    deal_to_silos(replace(settings, rng_seed=4), ["north", "south"], tmp_path / "dealt")
    carrier = serve(files, tmp_path / "silos")
    with pytest.raises(Mistake, match="the silo's data have changed since it sent its facts"):
        join_silos(settings, carrier, list(files), MACHINE, tmp_path / "run")
    deal_to_silos(settings, ["north", "south"], tmp_path / "dealt")
    join_silos(settings, carrier, list(files), MACHINE, tmp_path / "run")  # they were put back


def test_a_silo_that_is_away_or_refuses_is_named(tmp_path: Path) -> None:
    settings = settings_of(tmp_path, **digits(partition="iid"))
    files = deal_to_silos(settings, ["north", "south"], tmp_path / "dealt").files
    carrier = serve(files, tmp_path / "silos")
    carrier.gone.add("south")
    with pytest.raises(Mistake, match="silo south: is not connected; all silos must be there"):
        join_silos(settings, carrier, list(files), MACHINE, tmp_path / "run", JoinOptions(deadline=1))
    strict = serve(files, tmp_path / "silos", judge=lambda tables, rows: ["no fedavg here"])
    with pytest.raises(Mistake, match="the silo's policy refuses this run: no fedavg here"):
        join_silos(settings, strict, list(files), MACHINE, tmp_path / "other")
    assert not (tmp_path / "silos" / "north" / "begin").exists()
    assert not (tmp_path / "other" / AGREED_FILE).exists()


def test_silos_train_the_coordinators_adapters_on(tmp_path: Path) -> None:
    """They know neither the coordinator's folder of adapters nor its weights, and are sent both."""
    model = {"name": "mlp", "adapter": "lora"}
    settings = settings_of(tmp_path, **digits(partition="iid"), model=model)
    first = build_experiment(settings, MACHINE)
    (adapted,) = first.models.values()
    state = {name: torch.full_like(value, 0.1) for name, value in adapted.state_dict().items()}
    write_adapter(adapted, state, tmp_path / "adapter")
    base = {name: value for name, value in state.items() if "lora" not in name}
    safetensors.torch.save_file(base, tmp_path / "start.safetensors")
    settings = replace(
        settings,
        model={**settings.model, "adapter_weights": str(tmp_path / "adapter"), "aggregate": "exact"},
        pretrain=replace(settings.pretrain, weights=str(tmp_path / "start.safetensors")),
    )
    simulated, deployed, experiment = both(tmp_path, settings, 2)
    assert_same_weights(simulated[-1], deployed[-1], experiment.plan.ids[0])
    assert simulated[-1].train_loss == deployed[-1].train_loss
    assert bool((deployed[-1].weights()["1.lora_A"] == 0.1).all())
    begin = (tmp_path / "silos" / "silo0" / "begin").read_bytes()
    assert str(tmp_path).encode() not in begin
