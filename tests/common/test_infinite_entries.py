"""Masks of -inf, and observers that begin at infinity: equal entries differ by nothing, and every client counts."""

import math
from typing import Any

import pytest
import torch
from torch import Tensor, nn

import coterie
from coterie import Examples, Mistake, Recipe, Round
from coterie.engines.sequential import Sequential
from coterie.engines.vectorised import Vectorised
from tests.common.recipes import RECIPES
from tests.federations import dense, distance, ragged, seed_set

NAMES = (
    "fedavg", "scaffold", "scaffold, option I", "fedprox", "feddyn", "fedavgm", "fedadam", "fbn", "fedbn", "hbn",
    "fedh2l", "fedmd", "feddf", "fedssl, moco", "independent",
)  # fmt: skip


class Bounded(nn.Module):
    """A network whose outputs pass a mask and an upper bound: a buffer and a parameter with infinite entries."""

    def __init__(self, infinite: bool) -> None:
        super().__init__()
        self.bound = nn.Parameter(torch.full((6,), math.inf if infinite else 1e30, dtype=torch.float64))
        self.register_buffer("mask", torch.tensor([0.0, -math.inf if infinite else -1e30], dtype=torch.float64))
        self.network = dense()

    def forward(self, x: Tensor) -> Tensor:
        allowed = self.mask[:1].exp()  # 1
        assert isinstance(allowed, Tensor)
        return self.network(torch.minimum(x, self.bound) * allowed)


class Observer(nn.Module):
    """A network with the largest input that it has seen, which begins at -inf, and can be a class that was never."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.layer = nn.Linear(6, 3)
        self.register_buffer("largest", torch.tensor([-math.inf, -math.inf]))

    def forward(self, x: Tensor) -> Tensor:
        if self.training:
            seen = torch.stack([x.detach().amax(), self.largest[1]])
            self.largest = torch.maximum(self.largest, seen)
        return self.layer(x)


def run(recipe: Recipe, model: nn.Module, engine: Any, rounds: int = 2, **options: Any) -> list[Round]:
    options = {"seed_set": seed_set(), "clients": ragged()} | options
    return list(coterie.federate(recipe, model, rounds=rounds, engine=engine, **options))


@pytest.mark.parametrize("engine", [Sequential, Vectorised])
@pytest.mark.parametrize("name", NAMES)
def test_a_model_with_infinite_entries_trains_as_without_them(name: str, engine: Any) -> None:
    """w - w_i was NaN there, and every client was refused."""
    recipe = RECIPES[name]
    ours = run(recipe, Bounded(True), engine(dtype=torch.float64))
    same = run(recipe, Bounded(False), engine(dtype=torch.float64))
    assert [r.reached for r in ours] == [r.reached for r in same] == [6, 6]
    a, b = ours[-1].weights(), same[-1].weights()
    assert a.pop("bound").eq(math.inf).all()
    assert a.pop("mask").tolist() == [0, -math.inf]
    assert distance(a, {name: b[name] for name in a}) == 0


@pytest.mark.parametrize("engine", [Sequential, Vectorised])
def test_an_observer_that_begins_at_infinity_becomes_the_mean_of_what_clients_saw(engine: Any) -> None:
    clients = ragged()
    first, second = run(coterie.fedavg(lr=0.1), Observer(), engine(), clients=clients)
    assert first.reached == second.reached == 6
    sizes = torch.tensor([float(len(c)) for c in clients.values()])
    largest = torch.stack([c.tensors()[0].float().amax() for c in clients.values()])
    expected = float((sizes * largest).sum() / sizes.sum())
    assert first.weights()["largest"].tolist() == pytest.approx([expected, -math.inf], rel=1e-6)
    after = float((sizes * largest.clamp(min=expected)).sum() / sizes.sum())  # a client's can only grow
    assert second.weights()["largest"].tolist() == pytest.approx([after, -math.inf], rel=1e-6)


def test_a_diverged_client_is_refused_as_before() -> None:
    (only,) = run(coterie.fedavg(lr=1e38, local_epochs=3), Bounded(True), Sequential(), 1)
    assert len(only.dropped) == 5  # client 2 has one example, which its BatchNorm makes 0
    assert "holds numbers that are not finite" in only.dropped[0]["why"]


class Lazy(nn.Module):
    """A network with a buffer that gets its shape in the first forward, as some observers have."""

    def __init__(self) -> None:
        super().__init__()
        self.layer = nn.Linear(6, 3)
        self.register_buffer("seen", torch.zeros(0))

    def forward(self, x: Tensor) -> Tensor:
        self.seen = x.detach().amax(0)
        return self.layer(x)


def test_a_buffer_that_changes_its_shape_is_refused_by_name() -> None:
    clients = {"a": Examples(torch.randn(8, 6), torch.zeros(8, dtype=torch.int64))}
    with pytest.raises(Mistake, match=r"model: its buffer seen has the shape \[0\] before training and \[6\] after it"):
        run(coterie.fedavg(lr=0.1), Lazy(), Sequential(), clients=clients)
    model = Lazy()
    model(torch.zeros(2, 6))
    assert run(coterie.fedavg(lr=0.1), model, Sequential(), clients=clients)[-1].reached == 1
