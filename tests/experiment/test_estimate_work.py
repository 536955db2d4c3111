"""How much work a run is estimated to be, by hand."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import nn

import coterie
from coterie.core.examples import Clients
from coterie.experiment.engine_choice import Work
from coterie.experiment.estimate_work import estimate_work
from coterie.models.functional import make_task
from coterie.models.registry import build
from coterie.objectives import cross_entropy
from tests.federations import dense, ragged


def work(recipe: coterie.Recipe, models: list[nn.Module], clients: Clients, **options: Any) -> Work:
    algorithm = recipe(make_task(models[0], loss=cross_entropy))
    return estimate_work(algorithm, models, clients, **{"rounds": 1, "cohort": len(clients), **options})


def test_the_work_of_a_federation() -> None:
    """Clients of 7, 23, 1, 12, 16 and 9 examples in batches of 5 take 2, 5, 1, 3, 4 and 2 steps, 17 / 6 each; three of
    them in each of ten rounds make 85. A step's batch has (10 + 25 + 1 + 15 + 20 + 10) / 17 examples on average, whose
    forward pass is 2 (6 x 8 + 8 x 3) operations."""
    model, recipe = dense(), coterie.fedavg(lr=0.1, batch_size=5)
    found = work(recipe, [model], ragged(), rounds=10, cohort=3)
    assert (found.cohort, found.steps, found.layers) == (3, 85, 5)
    assert found.flops == pytest.approx(3 * 144 * 81 / 17)
    assert (found.uncompilable, found.unbatchable) == ("", "")
    assert work(recipe, [model], ragged(), rounds=10, cohort=3) == found
    assert model.training


@pytest.mark.parametrize(
    ("recipe", "peepholes", "why"),
    [
        (coterie.fedavg(lr=0.1, batch_size=5), True, "recurrent"),
        (coterie.fedavg(lr=0.1, batch_size=5), False, "recurrent"),
        (coterie.fedsgd(lr=0.1), None, "full batches"),
    ],
)
def test_what_is_not_compiled(recipe: coterie.Recipe, peepholes: bool | None, why: str) -> None:
    tokens = torch.randint(7, (12, 4))
    model: nn.Module = dense()
    clients = ragged()
    if peepholes is not None:
        model = build("char_lstm", [4], 7, 0, hidden=5, layers=1, peepholes=peepholes)
        clients = {"a": coterie.Examples(tokens, tokens)}
    found = work(recipe, [model], clients)
    assert why in found.uncompilable
    assert bool(found.unbatchable) == (peepholes is False)


def test_a_layer_that_would_count_padding_is_neither_compiled_nor_batched() -> None:
    model = nn.Sequential(nn.Unflatten(1, (2, 3)), nn.InstanceNorm1d(2, track_running_stats=True), nn.Flatten())
    found = work(coterie.fedavg(lr=0.1), [model.append(nn.Linear(6, 3))], ragged())
    assert "would count padding" in found.uncompilable
    assert "would count padding" in found.unbatchable


@pytest.mark.parametrize(
    ("name", "shape", "forward"),
    [
        ("2nn", (1, 28, 28), 2 * (784 * 200 + 200 * 200 + 200 * 10)),
        ("cnn", (1, 28, 28), 2 * (784 * 25 * 32 + 196 * 800 * 64 + 3136 * 512 + 5120)),
        ("char_lstm", (80,), 80 * 2 * (4 * 256 * (8 + 256) + 4 * 256 * (256 + 256))),
    ],
)
def test_operations_of_a_forward_pass(name: str, shape: tuple[int, ...], forward: float) -> None:
    """Products by hand, except those of the LSTM's output layer, which is a small part."""
    model = build(name, shape, 10, 0, **({"peepholes": False} if name == "char_lstm" else {}))
    x = torch.zeros(1, *shape, dtype=torch.int64 if name == "char_lstm" else torch.float32)
    clients = {"a": coterie.Examples(x, x if name == "char_lstm" else torch.zeros(1, dtype=torch.int64))}
    assert work(coterie.fedavg(lr=0.1), [model], clients).flops == pytest.approx(3 * forward, rel=0.02)


def test_a_client_at_work_takes_its_weights_and_what_lies_between_its_layers() -> None:
    """Two layers of 6 -> 3 -> 2 in float32 with 29 numbers, four times; the 3 + 2 that they give, forward and backward,
    for each of 5 examples. The pool of 20 examples that both clients share is held once. In float64 weights are twice
    as long.
    """
    model = nn.Sequential(nn.Linear(6, 3), nn.Linear(3, 2))
    pool = coterie.Examples(torch.zeros(20, 6), torch.zeros(20, dtype=torch.int64))
    clients = {"a": pool.take(torch.arange(10)), "b": pool.take(torch.arange(10, 20))}
    found = work(coterie.fedavg(lr=0.1, batch_size=5), [model], clients)
    assert found.nbytes == 4 * 29 * 4 + 2 * 5 * 5 * 4
    assert found.data == 20 * (6 * 4 + 8)
    double = work(coterie.fedavg(lr=0.1, batch_size=5), [model], clients, dtype=torch.float64)
    assert double.nbytes == 4 * 29 * 8 + 2 * 5 * 5 * 4


def test_several_models_are_compiled_apart_and_batched_where_one_can_be() -> None:
    one, other = nn.Linear(6, 3), nn.Sequential(nn.Linear(6, 9), nn.Linear(9, 3))
    found = work(coterie.independent(lr=0.1), [one, other], ragged())
    assert found.layers == 3
    alone = [work(coterie.independent(lr=0.1), [model], ragged()) for model in (one, other)]
    assert found.flops == sum(each.flops for each in alone) / 2


def test_a_model_that_cannot_take_the_examples_counts_nothing() -> None:
    """It is refused afterwards, in a sentence."""
    assert work(coterie.fedavg(lr=0.1), [nn.Linear(5, 3)], ragged()).flops == 0


def test_a_population_is_not_counted_client_by_client() -> None:
    """Ten clients are looked at, however many there are."""
    looked_at: list[str] = []

    class Lazy(dict[str, coterie.Examples]):
        def __getitem__(self, client: str) -> coterie.Examples:
            looked_at.append(client)
            return ragged()["0"]

    clients = Lazy(dict.fromkeys(map(str, range(1000))))  # type: ignore[arg-type]
    work(coterie.fedavg(lr=0.1), [dense()], clients, cohort=5)
    assert len(looked_at) == 10
