"""How many copies of a model are alive at once: one update of a round, and no state of an earlier round."""

import gc
import weakref
from typing import ClassVar

import pytest
import torch
from torch import Tensor

import coterie
from coterie.core import tree
from coterie.core.algorithm import Algorithm
from coterie.core.engine import Job, Reply
from coterie.core.tree import Tree
from coterie.engines.sequential import Sequential
from coterie.loop.faults import Faults
from tests.federations import dense, ragged


class Watch(Sequential):
    """Notes, where a client's work begins, how many leaves of earlier updates are still alive."""

    alive: ClassVar[list[int]]
    updates: ClassVar[list["weakref.ref[Tensor]"]]

    def _run_job(self, algorithm: Algorithm, broadcast: Tree, job: Job) -> Reply:
        gc.collect()
        self.alive.append(sum(update() is not None for update in self.updates))
        reply = super()._run_job(algorithm, broadcast, job)
        self.updates.extend(weakref.ref(leaf) for leaf in tree.leaves(reply.update))
        return reply


@pytest.mark.parametrize("faults", [None, Faults(corrupt=0.5)], ids=["all count", "some are refused"])
def test_an_update_is_gone_before_the_next_client_works(faults: Faults | None) -> None:
    """Six clients and two rounds; the mean adds each update to its sum, and nothing else holds on to one."""
    Watch.alive, Watch.updates = [], []
    recipe, engine = coterie.fedavg(lr=0.1, batch_size=5), Watch(dtype=torch.float64)
    rounds = list(coterie.federate(recipe, dense(), ragged(), rounds=2, engine=engine, faults=faults))
    assert [bool(round.dropped) for round in rounds] == [faults is not None] * 2
    assert Watch.alive == [0] * 12
    assert len(Watch.updates) > 12


def test_a_state_is_gone_when_the_round_after_the_next_begins() -> None:
    """While round t + 1 works, the state after t is alive and the one before t is not, if the caller holds no round."""
    earlier: list[weakref.ref[Tensor]] = []
    recipe = coterie.fedavg(lr=0.1, batch_size=5)
    for round in coterie.federate(recipe, dense().float(), ragged(), rounds=4):
        gc.collect()
        alive = [state() is not None for state in earlier]
        assert alive == [False] * (len(alive) - 1) + [True] * bool(alive)  # `round.before` is the last of them
        earlier.append(weakref.ref(round.state["params"]["0.weight"]))
        del round
