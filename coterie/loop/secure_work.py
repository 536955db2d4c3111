"""A client's part in the secure sum of a round, and the clients of a simulation, which take part one after another."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from typing import Protocol

import torch

from coterie.core import rng
from coterie.core.algorithm import Weighting
from coterie.core.engine import Reply
from coterie.core.tree import Tree
from coterie.loop.check_update import broken_leaf, part_problem, problem
from coterie.loop.jobs import Assignment, ClientData, clients_to_ask, jobs_of_clients, run_jobs
from coterie.loop.plan import Plan
from coterie.loop.private_sum import share_of_sum
from coterie.loop.replies import encode
from coterie.loop.store import Store
from coterie.loop.sum_layout import WEIGHTINGS, SumLayout
from coterie.loop.tally import Tally
from coterie.privacy.fixed_point import OutOfRange
from coterie.privacy.masking_client import Ask, Keys, MaskingClient, Neighbours, Unfit

MASKED = "masked"
"""The only leaf of a masked payload: bytes [d, b / 8]."""
STEPS = ("keys", "shares", "numbers")
"""At which of them a client that drops out does so."""

Shares = Mapping[str, Mapping[str, bytes]]
"""Client -> another client -> what the one sends for the other."""


class Server(Protocol):
    """What the server does between the clients' steps; see `coterie.privacy.masking_server`."""

    def neighbours(self, keys: Mapping[str, Keys]) -> dict[str, Neighbours]:
        """Return client -> its neighbours."""

    def deliver(self, sealed: Shares) -> dict[str, dict[str, bytes]]:
        """Return client -> neighbour -> what that neighbour sealed for it."""


class RowLayouts(Protocol):
    """The layouts of a round's rows; see `coterie.loop.secure_round.Layouts`."""

    @property
    def largest(self) -> Mapping[Weighting, float]:
        """P_k of each kind of weight."""

    def of(self, work: Assignment) -> SumLayout:
        """Return the layout for a client's work."""

    def honest_payload(self, work: Assignment, logs: int = 0) -> Tree:
        """Return what an honest masked payload looks like."""


class SecureWork(Protocol):
    """Where the clients of a round with a secure sum work, and how they are reached; one for each round.

    Attributes:
        purpose: what makes this sum different from all others.
        costs: client -> the most examples that its steps process, for the clients that are asked, in order.
    """

    purpose: str
    costs: Mapping[str, int]

    def replies(self, server: Server, layouts: RowLayouts) -> Iterator[tuple[Assignment, Reply]]:
        """Take the clients' keys and shares to the server and back, then yield their replies, whose updates are masked.

        A masked reply has no weighting, and its logs have names alone.

        Raises:
            TooFew: too few clients have sent keys, or shares.
        """

    def unmask(self, asks: Mapping[str, Ask]) -> dict[str, dict[str, bytes]]:
        """Return client -> the shares that it sent, of the clients that answer."""


class SimulatedSecureWork:
    """The clients of a simulation; see `SecureWork`. Cryptography and messages are real, and the wire is not there.

    A client that drops out by the plan's faults does so at a step of the sum that is drawn for it. One that misses the
    deadline has shared its keys before.
    """

    def __init__(self, plan: Plan, number: int, broadcast: Tree, store: Store, tally: Tally) -> None:
        """Draw the cohort. Collective: every process calls it."""
        self.plan, self.number, self.store, self.tally, self.broadcast = plan, number, store, tally, broadcast
        self.purpose = f"{plan.rng_seed}/{number}"
        self._data = ClientData(plan)
        self.costs: Mapping[str, int] = clients_to_ask(plan, number, broadcast, tally, self._data)
        self._clients = {client: MaskingClient(client, self.purpose) for client in tally.cohort}

    def replies(self, server: Server, layouts: RowLayouts) -> Iterator[tuple[Assignment, Reply]]:
        """Let the clients take the first three steps; see `SecureWork.replies`. Collective: every process calls it."""
        keys = {name: self._clients[name].advertise() for name in self._present("keys")}
        neighbours = server.neighbours(keys)
        sealed = {name: self._clients[name].share_keys(neighbours[name]) for name in self._present("shares")}
        delivered = server.deliver(sealed)
        self.tally.bytes_of_keys += count_bytes(keys.values()) + count_bytes(sealed.values())
        self.tally.bytes_down += sum(count_bytes(o.keys for o in n.others.values()) for n in neighbours.values())
        self.tally.bytes_down += count_bytes(delivered.values())
        parts = jobs_of_clients(self.plan, self.number, self.store, self.costs, self._data)
        for work, reply in encode(self.plan, run_jobs(self.plan, self.broadcast, parts)):
            client = self._clients[reply.client]
            masked = mask_reply(self.plan, layouts.of(work), work, reply, client, delivered.get(reply.client, {}))
            if isinstance(masked, str):
                self.tally.silent.append({"client": reply.client, "why": masked})
            else:
                yield work, masked

    def unmask(self, asks: Mapping[str, Ask]) -> dict[str, dict[str, bytes]]:
        """Return the shares of all that stayed; see `SecureWork.unmask`."""
        shares = {name: self._clients[name].unmask(ask) for name, ask in asks.items()}
        self.tally.bytes_of_keys += count_bytes(shares.values())
        return shares

    def _present(self, step: str) -> list[str]:
        """Return the clients that do a step: those that will answer, and those that drop out at a later one."""
        return [
            name
            for name in self.tally.cohort
            if name in self.costs or STEPS.index(self._last_step(name)) > STEPS.index(step)
        ]

    def _last_step(self, client: str) -> str:
        """Return the step that a client with a fault does not do."""
        fault = self.plan.faults.of(self.plan.rng_seed, self.number, client)
        if fault == "straggle":
            return "numbers"
        if fault is None:
            return "keys"  # it holds no examples
        return rng.python_generator(self.plan.rng_seed, self.number, client, "secure sum").choice(STEPS)


def mask_reply(
    plan: Plan, layout: SumLayout, work: Assignment, reply: Reply, client: MaskingClient, sealed: Mapping[str, bytes]
) -> Reply | str:
    """Return a client's reply with its numbers masked, or why it sends none.

    The client looks at its own update as a server would that could see it. Under a guarantee it bounds it instead, and
    one that is not finite counts as zeros.

    Args:
        plan, layout: of the round.
        work: what the reply answers.
        reply: encoded by the plan's codec; it is decoded here, and its numbers travel as residues.
        client: with its keys.
        sealed: what its neighbours sealed for it.
    """
    wrong = plan.codec.problem(reply.update) or state_problem(reply.state, work)
    if wrong is not None:
        return wrong
    update = plan.codec.decode(reply.update)
    if plan.guarantee is None:
        wrong = problem(update, reply.weighting["examples"], layout.template)
        wrong = wrong or part_problem(plan.algorithm.server, update, plan.codec.rounding)
        if wrong is not None:
            return wrong
    else:
        update = share_of_sum(plan, work.job.round, reply.client, update, layout.form)
        reply = reply._replace(weighting=dict.fromkeys(WEIGHTINGS, 1.0), logs={})
    try:
        numbers = layout.encode(reply._replace(update=update))
    except OutOfRange as error:
        return f"the update {error}"
    try:
        packed = layout.form.pack(client.mask(numbers, sealed))
    except Unfit as error:
        return str(error)
    masked = {MASKED: torch.from_numpy(packed)}
    return Reply(reply.client, masked, reply.state, {}, dict.fromkeys(sorted(reply.logs), 0.0))


def state_problem(after: Tree, work: Assignment) -> str | None:
    """Return what is wrong with the state that a client would keep, or None."""
    broken = broken_leaf(after, {"algorithm": work.job.state, "up": work.codec_state})
    return None if broken is None else f"the client's own {broken} holds numbers that are not finite"


def count_bytes(messages: Iterable[Keys | Mapping[str, bytes]]) -> int:
    """Return the bytes of keys and shares in messages, without names and framing."""
    return sum(sum(map(len, m.values() if isinstance(m, Mapping) else m)) for m in messages)
