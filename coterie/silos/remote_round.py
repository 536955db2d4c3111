"""The work of one round at silos: answers are taken as they come, and passed on in the order of the clients.

A reply is passed on as soon as everyone before it has answered. Those ahead of their turn wait in memory up to a
budget, and on the disk beyond it. So the sums are those of a simulation, bit for bit, and the coordinator's memory does
not grow with the number of silos.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import NamedTuple

import torch
from torch import Tensor

from coterie.core import tree
from coterie.core.engine import Job, Reply
from coterie.core.examples import Examples, sizes
from coterie.core.tree import Tree
from coterie.loop.check_update import problem
from coterie.loop.jobs import Assignment
from coterie.loop.plan import Plan
from coterie.loop.spill import Memory, StoredTree
from coterie.silos.letters import Result, weighting_problem
from coterie.silos.message import Message, Unusable

WAITING_BYTES = 2**26
"""Memory for updates that are ahead of their turn. Further ones wait on the disk."""
FRAMING_BYTES = 2**14
"""How much longer than its numbers an honest answer may be, for each client: names, shapes and logs."""
LEAF_BYTES = 2**9
"""How many bytes the name and shape of one leaf may take."""


class _Arrived(NamedTuple):
    """A client's reply that waits for its turn; its payload is in `stored`."""

    reply: Reply
    stored: StoredTree


class RemoteRound:
    """What is known about one round's clients, while answers come.

    Args:
        plan: in this round, the coordinator's.
        number: the round's.
        costs: client -> the most examples that its steps process, for the clients that are asked, in order.
        template_of: a client's work -> what an honest payload looks like.
    """

    def __init__(
        self, plan: Plan, number: int, costs: Mapping[str, int], template_of: Callable[[Assignment], Tree]
    ) -> None:
        self.plan, self.number, self.costs = plan, number, costs
        self.examples = dict(zip(costs, sizes(plan.clients, list(costs)), strict=True))
        self.template_of = template_of
        self.absent: dict[str, str] = {}  # client -> why it has no reply; it may be asked again
        self.failed: set[str] = set()  # clients without a reply since their silo said that it cannot work now
        self.refused: dict[str, str] = {}  # client -> why it has none, for good
        self.sound = 0  # replies that have the form of an honest one
        self._arrived: dict[str, _Arrived] = {}
        self._memory = Memory(WAITING_BYTES)
        self._turn = list(costs)[::-1]  # the next client is the last one

    def work_of(self, client: str) -> Assignment:
        """Return a client's work in the form that the loop wants: without data and state, which are at the silo."""
        plan, architecture = self.plan, self.plan.architecture(client)
        own = Examples(torch.empty(self.examples[client], 0))  # its length is all that is known here
        data = {
            name: plan.seed_set if stream.source == "seed_set" and plan.seed_set else own
            for name, stream in plan.algorithm.client.streams.items()
        }
        state = plan.client_state_from(client, None)["algorithm"]
        return Assignment(Job(client, architecture, state, data, plan.seed_set, self.number, plan.rng_seed), {})

    def max_bytes(self, clients: Sequence[str]) -> int:
        """Return the length of the longest honest answer for these clients."""
        return FRAMING_BYTES + sum(map(self._max_bytes_of, clients))

    def _max_bytes_of(self, client: str) -> int:
        template = self.template_of(self.work_of(client))
        names = sum(2 * len(name) + LEAF_BYTES for name in tree.flatten(template))
        return tree.nbytes(template) + names + FRAMING_BYTES

    def take(self, result: Result, k: int, message: Message) -> None:
        """Take one client's work from a silo's answer, whose k-th payload is this client's."""
        client = result.client
        self.absent.pop(client, None)
        wrong = result.why or weighting_problem(result.weighting, self.examples[client], self.costs[client])
        if wrong is None:
            try:
                payload = message.tree(k)
            except Unusable as error:
                wrong = f"the payload {error}"
        if wrong is not None:
            self.refused[client] = wrong
            return
        template = self.template_of(self.work_of(client))
        self.sound += problem(payload, 1.0, template) is None
        marker = {"at_silo": torch.tensor(self.number)} if result.stateful else {}
        reply = Reply(client, {}, {"algorithm": {}, "up": {}, "kept": marker}, result.weighting, result.logs)
        self._arrived[client] = _Arrived(reply, self._memory.hold(payload))

    def in_turn(self, closed: bool = False) -> Iterator[tuple[Assignment, Reply]]:
        """Yield the replies whose turn it is, each once; all that are left if the round is closed."""
        while self._turn:
            client = self._turn[-1]
            if client not in self._arrived and client not in self.refused and not closed:
                return
            self._turn.pop()
            arrived = self._arrived.pop(client, None)
            if arrived is not None:
                update = tree.map(self._to_device, self._memory.get(arrived.stored))
                yield self.work_of(client), arrived.reply._replace(update=update)

    def _to_device(self, x: Tensor) -> Tensor:
        return x.to(self.plan.engine.device)

    def silent(self) -> list[dict[str, str]]:
        """Return {"client", "why"} of each client without a reply, in order."""
        why = {**self.absent, **self.refused}
        return [{"client": client, "why": why[client]} for client in self.costs if client in why]
