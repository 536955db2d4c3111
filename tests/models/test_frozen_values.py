"""Frozen values are constants: they are not trained or sent, and are still part of the model."""

from pathlib import Path

import pytest
import safetensors.torch
import torch
from torch import nn

import coterie
from coterie import Examples, Mistake
from coterie.core import tree
from coterie.models.frozen_values import frozen_norms, frozen_values
from coterie.models.functional import initial_weights, make_task
from coterie.objectives import cross_entropy
from coterie.track.weights_file import pack_weights
from tests.algorithms.normed import ENGINES, run
from tests.common.recipes import RECIPES
from tests.federations import SIZES, dense, distance, ragged, seed_set

SEQUENTIAL = ("fedavg, all options", "scaffold, option I", "feddyn", "fedbn", "fixbn", "fedh2l, all options", "feddf")
VECTORISED = ("fedadam", "fbn, all options", "fedmd")
COMMON = [(r, "sequential") for r in SEQUENTIAL] + [(r, "vectorised") for r in VECTORISED]


def two_norms() -> nn.Module:
    """A model whose first three layers are frozen, among them a BatchNorm layer with statistics of data."""
    torch.manual_seed(4)
    model = nn.Sequential(
        nn.Linear(6, 5), nn.BatchNorm1d(5), nn.ReLU(), nn.Linear(5, 8), nn.BatchNorm1d(8), nn.ReLU(), nn.Linear(8, 3)
    ).double()
    model[1](torch.randn(9, 5, dtype=torch.float64))
    model[:2].requires_grad_(False)
    return model


def features(model: nn.Module, clients: dict[str, Examples]) -> dict[str, Examples]:
    """Return the frozen layers' outputs for each client's data."""
    part = model[:3].eval()
    with torch.no_grad():
        return {client: Examples(part(e.tensors()[0]), e.tensors()[1]) for client, e in clients.items()}


@pytest.mark.parametrize(("recipe", "engine"), COMMON)
def test_every_algorithm_trains_the_rest_on_the_frozen_features(recipe: str, engine: str) -> None:
    """A federation of the rest alone, whose clients have the frozen layers' outputs as data, takes the same steps and
    sends the same messages, byte for byte."""
    whole, public = two_norms(), seed_set()
    rest = whole[3:]
    options = {"rounds": 3, "engine": engine, "cohort": 0.7}
    seen, seen_by_all = features(whole, ragged()), features(whole, {"public": public})["public"]
    a = run(RECIPES[recipe], whole, ragged(), seed_set=public, **options)
    b = run(RECIPES[recipe], rest, seen, seed_set=seen_by_all, **options)
    for client in a.plan.ids[:3]:
        one, other = a.weights(client), b.weights(client)  # a slice of a Sequential keeps its names
        assert all(torch.equal(one[name], value) for name, value in frozen_values(whole).items())
        assert distance({name: one[name] for name in other}, other) < 1e-9
        assert one.keys() == whole.state_dict().keys()
    assert (a.bytes_up, a.bytes_down, a.test_accuracy) == (b.bytes_up, b.bytes_down, b.test_accuracy)


@pytest.mark.parametrize("recipe", ["fedssl, heads at the client", "fedssl, moco"])
def test_an_encoder_has_frozen_values_too(recipe: str) -> None:
    model = two_norms()
    after = run(RECIPES[recipe], model, ragged(), rounds=1).weights("1")
    assert all(torch.equal(after[name], value) for name, value in frozen_values(model).items())
    assert not torch.equal(after["3.weight"], model[3].weight)


def test_frozen_values_have_the_engines_dtype() -> None:
    for make in ENGINES.values():
        engine = make(dtype=torch.float32)
        (last,) = coterie.federate(coterie.fedavg(lr=0.1), two_norms(), ragged(), rounds=1, engine=engine)
        assert {x.dtype for x in last.weights().values()} == {torch.float32, torch.int64}


def test_a_layer_without_parameters_follows_the_part_it_is_in() -> None:
    model = nn.Sequential(nn.Sequential(nn.Linear(2, 2), nn.BatchNorm1d(2, affine=False)), nn.BatchNorm1d(2))
    assert frozen_norms(model) == frozenset()
    model[0].requires_grad_(False)
    assert frozen_norms(model) == {"0.1"}
    assert "0.1.running_mean" in frozen_values(model)
    assert "0.1.running_mean" not in initial_weights(model)["buffers"]
    assert frozen_norms(nn.Sequential(nn.BatchNorm1d(2, affine=False))) == frozenset()


def test_instance_normalisation_with_statistics_is_frozen_too() -> None:
    model = nn.Sequential(nn.InstanceNorm1d(2, affine=True, track_running_stats=True), nn.Flatten(), nn.Linear(8, 2))
    model[0].requires_grad_(False)
    task, weights = make_task(model, loss=cross_entropy), initial_weights(model)
    x = 3 + torch.randn(5, 2, 4)
    outputs, after = task.apply(weights["params"], weights["buffers"], x, None, torch.tensor(0))
    assert after == {}
    assert torch.allclose(outputs, model.eval()(x))
    assert torch.equal(task.frozen["0.running_mean"], torch.zeros(2))


def test_a_model_whose_batchnorm_is_frozen_has_none_for_fbn() -> None:
    model = dense()
    model[1].requires_grad_(False)
    with pytest.raises(Mistake, match="BatchNorm"):
        coterie.plan(coterie.fbn(variant="paper", lr=0.1), model, ragged(), rounds=1)
    with pytest.raises(Mistake, match="normalisation"):
        coterie.plan(coterie.fedbn(lr=0.1), model, ragged(), rounds=1)


def test_saved_weights_have_the_frozen_values(tmp_path: Path) -> None:
    model = two_norms()
    (last,) = coterie.federate(coterie.fedavg(lr=0.1), model, ragged(SIZES[:2]), rounds=1)
    (tmp_path / "model").write_bytes(pack_weights(model, last.weights()))
    saved = safetensors.torch.load_file(tmp_path / "model")
    model.load_state_dict(saved)
    assert tree.nbytes(saved) == last.bytes_down / 2 + tree.nbytes(last.plan.tasks["model"].frozen)
