"""What users are handed: a write into it does not enter the training, or is refused in a sentence."""

from collections.abc import Callable, Iterator
from typing import Any

import pytest
import torch
from torch import Tensor, nn

import coterie
from coterie import Examples, Mistake, Round
from coterie.core import tree
from coterie.core.aggregators import Coordinatewise
from coterie.engines.sequential import Sequential
from coterie.engines.vectorised import Vectorised
from coterie.loop.attack import Attack, Sight
from tests.common.recipes import RECIPES
from tests.federations import dense, distance, ragged, seed_set

NAMES = ("fedavg, all options", "scaffold", "feddyn", "fedadam", "fbn", "fedbn", "fedh2l", "feddf", "independent")


def rounds(name: str, model: nn.Module, engine: Any = Sequential, **options: Any) -> Iterator[Round]:
    options = {"seed_set": seed_set(), "clients": ragged(), "keep_updates": True, "rounds": 3, "rng_seed": 3} | options
    return coterie.federate(RECIPES[name], model, engine=engine(dtype=torch.float64), **options)


def spoil(leaves: list[Tensor]) -> None:
    for leaf in leaves:
        leaf.add_(1)


@pytest.mark.parametrize("engine", [Sequential, Vectorised])
@pytest.mark.parametrize("name", NAMES)
def test_rounds_with_writes_in_place_equal_rounds_without(name: str, engine: Any) -> None:
    """A moving average in place, or noise, in the caller's loop entered the next round."""
    *_, untouched = rounds(name, dense(), engine)
    model = dense()
    for written in rounds(name, model, engine):
        last = {client: {n: x.clone() for n, x in written.weights(client).items()} for client in ("0", "3")}
        assert written.updates is not None
        for client in ("0", "3"):
            spoil(list(written.weights(client).values()))
            spoil(list(model.state_dict().values()))
            spoil(tree.leaves(written.plan.client_state(written.store, client)))
        spoil([leaf for update in written.updates.values() for leaf in tree.leaves(update)])
    for client, weights in last.items():
        assert distance(weights, untouched.weights(client)) == 0


def test_writing_into_the_state_itself_is_refused() -> None:
    for change in (lambda r: spoil(tree.leaves(r.state)), lambda r: spoil(tree.leaves(r.plan.initial))):
        run = rounds("fedavg", dense())
        change(next(run))
        with pytest.raises(Mistake, match=r"the state of round 1 was written into.* round\.weights\(\)"):
            next(run)


def test_tied_weights_stay_tied_in_the_copies() -> None:
    class Tied(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.a = nn.Linear(6, 6)
            self.b = nn.Linear(6, 6)
            self.b.weight = self.a.weight

        def forward(self, x: Tensor) -> Tensor:
            return self.b(self.a(x))

    (only,) = rounds("fedavg", Tied().double(), rounds=1)
    found = only.weights()
    assert found["a.weight"] is found["b.weight"]


def test_an_aggregator_that_writes_into_the_updates_leaves_the_record_as_it_was() -> None:
    def zero(updates: Tensor) -> Tensor:
        mean = updates.mean(0)
        updates.zero_()
        return mean

    (kept,) = rounds("fedavg", dense(), rounds=1, aggregation=Coordinatewise(zero))
    (same,) = rounds("fedavg", dense(), rounds=1, aggregation=Coordinatewise(lambda updates: updates.mean(0)))
    assert kept.updates is not None
    assert same.updates is not None
    for client, update in kept.updates.items():
        assert distance(tree.flatten(update), tree.flatten(same.updates[client])) == 0
    assert distance(kept.weights(), same.weights()) == 0


def test_an_attack_that_writes_into_what_it_sees_changes_only_its_own() -> None:
    def forge(zero: bool) -> Callable[[Sight], Tensor]:
        def forged(sight: Sight) -> Tensor:
            mean = sight.honest.mean(0).expand_as(sight.own).clone()
            if zero:
                spoil([sight.honest, sight.own])
            return -mean

        return forged

    ends = [list(rounds("fedavg", dense(), attack=Attack(2, forge(zero))))[-1] for zero in (False, True)]
    assert distance(ends[0].weights(), ends[1].weights()) == 0


def test_a_poison_that_writes_into_shared_examples_is_refused() -> None:
    def flip(examples: Examples, classes: int | None) -> Examples:
        assert examples.y is not None
        examples.y.zero_()
        return examples

    with pytest.raises(Mistake, match=r"attack\.poison writes into the examples"):
        next(rounds("fedavg", dense(), attack=Attack(1, poison=flip)))


def test_a_metric_that_writes_into_the_outputs_is_refused_by_name() -> None:
    def greedy(outputs: Tensor, y: Tensor) -> tuple[Tensor, Tensor]:
        outputs.zero_()
        return torch.ones(len(y)), torch.ones(len(y))

    with pytest.raises(Mistake, match="greedy writes into the model's outputs"):
        next(rounds("fedavg", dense(), test=ragged()["1"], metrics={"greedy": greedy}))


@pytest.mark.parametrize("name", ["fedh2l", "fedmd", "feddf"])
def test_a_model_that_writes_into_its_input_leaves_data_and_seed_set_as_they_were(name: str) -> None:
    clients, seeds = ragged(), seed_set()
    before = [tree.clone({"x": e.x})["x"] for e in (seeds, *clients.values())]
    model = nn.Sequential(nn.ReLU(inplace=True), nn.Linear(6, 3)).double()
    list(rounds(name, model, clients=clients, seed_set=seeds, test=clients["1"]))
    assert all(torch.equal(a, e.x) for a, e in zip(before, (seeds, *clients.values()), strict=True))


def test_a_tensor_of_the_state_that_is_replaced_is_refused() -> None:
    """Weights that the caller put into `round.state` went into the next round without a word."""
    running = rounds("fedavg, all options", dense())
    params = next(running).state["params"]
    params |= {name: torch.zeros_like(p) for name, p in params.items()}
    with pytest.raises(Mistake, match="the state of round 1 was written into"):
        next(running)
