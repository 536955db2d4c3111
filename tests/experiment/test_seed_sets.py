"""Clients with models of their own, and their seed set, as a file describes them."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import safetensors
import torch

from coterie import Mistake
from coterie.data import load as load_source
from coterie.data.seed_set import count_bytes
from coterie.experiment import folder_jobs
from coterie.experiment.build_experiment import Experiment, build_experiment
from coterie.experiment.resolve_engine import this_machine
from coterie.experiment.run import run
from coterie.experiment.settings import load_settings
from tests.experiment.files import written

WARDS = """
rounds = 2
[data]
source = "npz"
path = "wards.npz"
client_column = "ward"
[model]
clients = {north = "mlp", south = "logistic", "St. Mary's" = "mlp"}
[algorithm]
name = "fedh2l"
lr = 0.1
"""
NAMES = ["north", "south", "St. Mary's"]


@pytest.fixture
def path(tmp_path: Path) -> Path:
    """Three clients of 16 training examples each, with three features and two classes; and a file of 10 more."""
    rng = np.random.default_rng(0)
    np.savez(tmp_path / "wards.npz", x=rng.normal(size=(60, 3)), y=np.arange(60) % 2, ward=np.array(NAMES).repeat(20))
    np.savez(tmp_path / "seed.npz", x=rng.normal(size=(10, 3)), y=np.arange(10) % 2)
    return written(tmp_path, WARDS, "wards.toml")


@pytest.fixture(autouse=True)
def no_report(monkeypatch: pytest.MonkeyPatch) -> None:
    """It takes longer than the runs."""
    monkeypatch.setattr(folder_jobs, "write_report", lambda folder: (folder / "report.html").write_text("page"))


def built(path: Path, *overrides: str) -> Experiment:
    return build_experiment(load_settings(path, overrides), this_machine())


def model_in(file: Path) -> str:
    with safetensors.safe_open(file, "pt") as opened:
        found: str = opened.metadata()["model"]
        return found


def models_of(folder: Path) -> dict[str, str]:
    return {client["id"]: client["model"] for client in json.loads((folder / "clients.json").read_text())}


SEED = ("seed_set.source=npz", "seed_set.path=seed.npz")


def test_a_table_says_which_client_has_which_model(path: Path, tmp_path: Path) -> None:
    """Equal models are one architecture, so that an engine can batch them; its name is in clients.json and in every
    file of weights."""
    experiment = built(path, *SEED)
    assert len(experiment.plan.tasks) == 2
    assert experiment.plan.architecture("north") == experiment.plan.architecture("St. Mary's")
    folder = run(load_settings(path, SEED), tmp_path / "run").folder
    expected = {"north": "mlp", "south": "logistic", "St. Mary's": "mlp"}
    assert models_of(folder) == expected
    files = {"north": "north", "south": "south", "St. Mary's": "St.%20Mary%27s"}
    assert {client: model_in(folder / "clients" / f"{file}.safetensors") for client, file in files.items()} == expected
    again = run(load_settings(folder / "config.toml"), tmp_path / "again").folder
    for name in ("config.toml", "clients.json", *(f"clients/{file}.safetensors" for file in files.values())):
        assert (folder / name).read_bytes() == (again / name).read_bytes()


def test_names_are_dealt_in_turn_and_a_name_that_returns_is_one_architecture(path: Path, tmp_path: Path) -> None:
    options = (*SEED, "model.names=['mlp', 'logistic', 'mlp']")
    assert len(built(path, *options).plan.tasks) == 2
    folder = run(load_settings(path, options), tmp_path / "run").folder
    assert list(models_of(folder).values()) == ["mlp", "logistic", "mlp"]


def test_one_model_for_all_needs_no_name_beside_a_client(path: Path, tmp_path: Path) -> None:
    one = ("model.name=logistic", "algorithm={name='fedavg', lr=0.1}")
    folder = run(load_settings(path, one), tmp_path / "run").folder
    assert all("model" not in client for client in json.loads((folder / "clients.json").read_text()))
    with safetensors.safe_open(folder / "model.safetensors", "pt") as opened:
        assert opened.metadata() == {"format": "pt"}


def test_a_seed_set_has_a_source_of_its_own(path: Path) -> None:
    """All of a file of the user's own, or as many of its examples as are asked for, class-balanced; the clients keep
    theirs."""
    whole, some = built(path, *SEED), built(path, *SEED, "seed_set.examples=4")
    assert whole.plan.seed_set is not None
    assert some.plan.seed_set is not None
    assert (len(whole.plan.seed_set), len(some.plan.seed_set)) == (10, 4)
    assert torch.bincount(some.plan.seed_set.tensors()[1]).tolist() == [2, 2]
    assert sum(len(examples) for examples in whole.clients.values()) == 48


def test_of_a_data_set_with_test_examples_only_the_others_are_taken(tmp_path: Path) -> None:
    text = WARDS.replace('"npz"\npath = "wards.npz"\nclient_column = "ward"', '"digits"\nnum_clients = 3')
    text = text.replace("clients = {", "clients = {0 = 'mlp', 1 = 'mlp', 2 = 'mlp'} #")
    experiment = built(written(tmp_path, text), "seed_set.source=digits", "seed_set.examples=100")
    train, seed_set = load_source("digits").train.x, experiment.plan.seed_set
    assert seed_set is not None
    assert seed_set.x.shape == train.shape
    assert bool((seed_set.x == train).all())


def test_labels_can_be_left_out_of_either(path: Path, tmp_path: Path) -> None:
    for options in (SEED, ("algorithm.seed_examples_per_client=2",)):
        experiment = built(path, *options, "seed_set.labels=false")
        assert experiment.plan.seed_set is not None
        assert experiment.plan.seed_set.y is None
    run(load_settings(path, (*SEED, "seed_set.labels=false")), tmp_path / "run")
    np.savez(tmp_path / "seed.npz", x=np.zeros((7, 3)))  # such a file needs no y
    bare = built(path, *SEED, "seed_set.labels=false").plan.seed_set
    assert bare is not None
    assert (len(bare), bare.y) == (7, None)
    with pytest.raises(Mistake, match='holds no array "y"'):
        built(path, *SEED)


def test_handing_it_out_is_counted_once(path: Path, tmp_path: Path) -> None:
    """An example here is three float32 and an int64, 20 bytes; without its label 12. From elsewhere, ten go to each of
    three clients. Taken from them, six go up, and each gets the four that it did not give."""
    per_client = "algorithm.seed_examples_per_client=2"
    cases: list[tuple[tuple[str, ...], dict[str, Any]]] = [
        (SEED, {"seed_set": 3 * 10 * 20}),
        ((*SEED, "seed_set.labels=false"), {"seed_set": 3 * 10 * 12}),
        ((per_client,), {"seed_set": 6 * 20 + 3 * 4 * 20}),
        ((per_client, "algorithm.name=independent"), {"seed_set": 6 * 20 + 3 * 4 * 20}),
        ((per_client, "model.name=mlp", "algorithm.name=centralized"), {}),  # nothing is handed out in one place
        (("algorithm.name=independent",), {}),
    ]
    for k, (options, expected) in enumerate(cases):
        outcome = run(load_settings(path, options), tmp_path / str(k))
        assert outcome.summary["bytes_once"] == expected
        assert json.loads((outcome.folder / "summary.json").read_text())["bytes_once"] == expected
    seed_set = built(path, *SEED).plan.seed_set
    assert seed_set is not None
    assert count_bytes(seed_set) == 200


def test_a_table_of_numbers_is_put_on_the_clients_scale(path: Path, tmp_path: Path) -> None:
    """Federated: the columns' means and deviations are the clients'. Local: the seed set goes by its own."""
    raw = torch.from_numpy(np.load(tmp_path / "seed.npz")["x"]).float()
    own = np.load(tmp_path / "wards.npz")
    federated = built(path, *SEED, "data.standardize=federated").plan.seed_set
    local = built(path, *SEED, "data.standardize=local").plan.seed_set
    assert federated is not None
    assert local is not None
    train = load_source("npz", path=tmp_path / "wards.npz", client_column="ward").train.tensors()[0].double()
    assert len(train) < len(own["x"])
    expected = (raw - train.mean(0)) / train.std(0, unbiased=False)
    assert torch.allclose(federated.tensors()[0], expected.float(), atol=1e-5)
    assert torch.allclose(local.tensors()[0].mean(0), torch.zeros(3), atol=1e-6)
    assert torch.allclose(local.tensors()[0].std(0, unbiased=False), torch.ones(3), atol=1e-5)


@pytest.mark.parametrize(("send_as", "each"), [("float32", 4), ("float16", 2), ("uint8", 1)])
def test_posteriors_are_rounded_by_a_key(path: Path, tmp_path: Path, send_as: str, each: int) -> None:
    """Three clients, ten seed examples, two classes, two rounds."""
    end = run(load_settings(path, (*SEED, f"algorithm.send_as={send_as}")), tmp_path / send_as).summary
    assert end["bytes_up"] == 2 * 3 * 10 * 2 * each


WRONG: list[tuple[tuple[str, ...], str]] = [
    (
        ("model.clients={north='mlp', south='mlp'}",),
        "model.clients.St. Mary's: missing; name a model for each of the",
    ),
    (
        ("model.clients={north='mlp', south='mlp', \"St. Mary's\"='mlp', est='mlp'}",),
        'model.clients.est = "mlp": there is no such client; there are ',
    ),
    (("model.clients={north='mpl'}",), 'model.clients.north = "mpl": did you mean "mlp"?'),
    (("model.clients={north=3}",), "model.clients.north = 3: it must be text in quotes"),
    (("model.clients={}",), "model.clients = {}: it must be a table, 1 or more of them"),
    (("model={clients={north='mlp'}, name='mlp'}",), "model.name and model.clients are both given; keep one of them"),
    (("algorithm.name=fedavg",), "model.clients = {"),
    ((), "algorithm.seed_examples_per_client is missing; fedh2l needs a seed set, to which each client gives"),
    (
        (*SEED, "algorithm.seed_examples_per_client=2"),
        'seed_set.source = "npz": algorithm.seed_examples_per',
    ),
    (("seed_set.labels=false",), "seed_set.labels = false: there is no seed set; give seed_set.source, or"),
    (("seed_set.examples=3",), "seed_set.examples = 3: there is no such key; "),
    ((*SEED, "seed_set.examples=11"), "seed_set.examples = 11: there are 10 to draw from; ask for no more"),
    (("seed_set.source=npz",), "seed_set.path is missing"),
    (("seed_set.source=npz", "seed_set.path=none.npz"), "seed_set.path = "),
    (("seed_set.source=npy",), 'seed_set.source = "npy": did you mean "npz"?'),
    (
        ("seed_set.source=digits",),
        "its examples have the shape [1, 8, 8], the clients' [3]; a",
    ),
    (
        (*SEED, "seed_set.labels=false", "algorithm.name=independent"),
        "seed_set.labels = false: independent would",
    ),
    ((*SEED, "algorithm.send_as=int4"), 'algorithm.send_as = "int4": it must be "float32", "float16" or "uint8"'),
    ((*SEED, "algorithm={name='fedmd', lr=0.1, send_as='uint8'}"), 'algorithm.send_as = "uint8": it must be'),
]


@pytest.mark.parametrize(("overrides", "sentence"), WRONG, ids=[w[1][:40] for w in WRONG])
def test_what_is_refused(path: Path, overrides: tuple[str, ...], sentence: str) -> None:
    with pytest.raises(Mistake) as caught:
        built(path, *overrides)
    assert sentence in str(caught.value)
    assert "\n" not in str(caught.value)
