"""How often the processes of a team meet in a round: two threads stand for two processes, and every meeting counts."""

import threading
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from typing import Any

import pytest
import torch
from torch import Tensor, nn

import coterie
from coterie.core import tree
from coterie.core.algorithm import Recipe
from coterie.data import deal, load
from coterie.models.registry import build
from coterie.processes import team as module
from coterie.processes.team import ALONE, Team, gather_rows


@dataclass
class Thread:
    """One of two processes, which meet at a barrier."""

    rank: int
    barrier: threading.Barrier
    values: list[Any]
    size: int = 2
    meetings: list[str] = field(default_factory=list)

    def meet(self, kind: str, value: Any) -> list[Any]:
        self.meetings.append(kind)
        self.values[self.rank] = value
        self.barrier.wait(60)
        found = list(self.values)
        self.barrier.wait(60)
        return found

    def gather(self, value: Any) -> list[Any]:
        return self.meet("gather", value)

    def sum(self, x: Tensor) -> Tensor:
        first, second = self.meet("sum", x)
        return torch.add(first, second)

    def exchange(self, parcels: Sequence[Tensor]) -> list[Tensor]:
        return [given[self.rank] for given in self.meet("exchange", parcels)]

    def second_channel(self) -> Team:
        return self


def run(recipe: Recipe, team: Team, model: nn.Module) -> tuple[list[list[str]], Tensor]:
    """Three rounds of the clients of one owner, half of whom work in the other process; the meetings of each round."""
    source = load("synthetic", num_clients=12, examples_per_client=20)
    clients = deal(source)
    meetings, seen = [], 0
    for round in coterie.federate(recipe, model, clients, cohort=4, rounds=3, team=team):
        everything = getattr(team, "meetings", [])
        meetings.append(everything[seen:])
        seen = len(everything)
        state = round.state
    return meetings, torch.cat([leaf.reshape(-1) for leaf in tree.leaves(state["params"])])


def run_both(recipe: Recipe) -> list[tuple[list[list[str]], Tensor]]:
    barrier, values = threading.Barrier(2), [None, None]
    models = [build("mlp", (60,), 10, 0) for _ in range(2)]  # threads have one generator of PyTorch between them
    with ThreadPoolExecutor(2) as pool:
        return list(pool.map(lambda rank: run(recipe, Thread(rank, barrier, values), models[rank]), (0, 1)))


def test_processes_meet_twice_in_a_round_of_fedavg() -> None:
    """Once for what each took, once for the sum. No facts of the cohort and no states travel; the weights agree."""
    (first, weights), (second, same) = run_both(coterie.fedavg(lr=0.1, batch_size=5))
    assert first == second
    assert first[1:] == [["gather", "sum"]] * 2
    assert torch.equal(weights, same)
    torch.testing.assert_close(weights, run(coterie.fedavg(lr=0.1, batch_size=5), ALONE, build("mlp", (60,), 10, 0))[1])


def test_states_travel_from_the_round_after_the_first_that_made_some() -> None:
    """SCAFFOLD's clients have a state after round 1; those that work elsewhere then take it with them."""
    (first, weights), (second, same) = run_both(coterie.scaffold(lr=0.1, batch_size=5))
    assert first == second
    assert torch.equal(weights, same)
    assert first[0][-1] == "exchange"  # they return to their owners
    torch.testing.assert_close(
        weights, run(coterie.scaffold(lr=0.1, batch_size=5), ALONE, build("mlp", (60,), 10, 0))[1]
    )


@pytest.mark.parametrize("whole", [True, False])
@pytest.mark.parametrize("places", [((4, 0, 7), (1, 5)), ((), (3, 2, 1, 9, 0)), ((0, 1, 2, 3, 4), ())])
@pytest.mark.parametrize("columns", [1, 2, 3, 7, 8])
def test_rows_of_two_processes_come_in_the_order_of_the_cohort(places, whole, columns, monkeypatch) -> None:
    """Update k holds 10 k to 10 k + 6. The first process has four of the columns, the second three."""
    monkeypatch.setattr(module, "block_columns", lambda n: columns)
    barrier, values = threading.Barrier(2), [None, None]

    def rows(rank: int) -> Tensor:
        own = torch.tensor([[10.0 * k + j for j in range(7)] for k in places[rank]]).reshape(-1, 7)
        return gather_rows(Thread(rank, barrier, values), own, places, whole)

    with ThreadPoolExecutor(2) as pool:
        found = list(pool.map(rows, (0, 1)))
    expected = torch.tensor([[10.0 * k + j for j in range(7)] for k in sorted((*places[0], *places[1]))])
    for part, share in zip(found, [expected] * 2 if whole else [expected[:, :4], expected[:, 4:]], strict=True):
        assert torch.equal(part, share)
