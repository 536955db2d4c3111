"""The work of a round: which clients of the cohort will answer, where each is run, and from which state.

With several processes, a client's owner looks at its data and keeps its state. The owner also does its work, unless the
round would be uneven. Then the state goes to another process for this round, and comes back.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import NamedTuple, TypeVar

from coterie.core import tree
from coterie.core.engine import Job, Reply, count_examples
from coterie.core.examples import Examples, sizes
from coterie.core.tree import Tree
from coterie.loop import faults
from coterie.loop.plan import Plan
from coterie.loop.spill import StoredTree
from coterie.loop.store import Store
from coterie.loop.tally import Tally
from coterie.processes.team import Team, all_to_all, owner, owns, share_work

T = TypeVar("T")


class Assignment(NamedTuple):
    """A client's work in a round."""

    job: Job
    codec_state: Tree  # what the codec keeps at the client


PART_BYTES = 2**25
"""Bytes of examples made on demand that a part of the cohort may hold. A part is one call of the engine, so this must
not depend on the machine."""


def jobs_of_cohort(
    plan: Plan, number: int, broadcast: Tree, store: Store, tally: Tally
) -> Iterator[dict[str, Assignment]]:
    """Draw the cohort; return this process's jobs, in cohort order, without clients that will not answer.

    The jobs come in parts, so that memory does not grow with the cohort. The cohort and the clients that will not
    answer are noted in the tally. Collective: every process calls it; what it returns is not.
    """
    data = ClientData(plan)
    costs = clients_to_ask(plan, number, broadcast, tally, data)
    return jobs_of_clients(plan, number, store, costs, data)


def jobs_of_clients(
    plan: Plan, number: int, store: Store, costs: Mapping[str, int], data: ClientData
) -> Iterator[dict[str, Assignment]]:
    """Return this process's jobs of the clients that will answer, each with the cost of its work; see `jobs_of_cohort`.

    Collective: every process calls it; what it returns is not.
    """
    at = share_work(costs, plan.team)
    return _parts(plan, number, store, at, _borrow_states(plan, store, at), data)


def clients_to_ask(
    plan: Plan, number: int, broadcast: Tree, tally: Tally, data: ClientData | None = None
) -> dict[str, int]:
    """Draw the cohort; return its clients that will answer, in order, each with the cost of its work.

    The cohort and the clients that will not answer are noted in the tally. Collective: every process calls it.
    """
    data = data or ClientData(plan)
    tally.cohort = plan.draw_cohort(number)
    tally.bytes_down = tree.nbytes(broadcast) * len(tally.cohort)
    silent = {client: faults.REASONS.get(plan.faults.of(plan.rng_seed, number, client)) for client in tally.cohort}
    answering = [client for client in tally.cohort if silent[client] is None]
    if plan.can_count:  # every process knows how many examples all clients have, so nothing need be exchanged
        costs = _costs(plan, data, answering)
    else:
        costs = _gather_dicts(plan.team, _costs(plan, data, [c for c in answering if owns(plan.team, c)]))
    for client in tally.cohort:
        if not costs.get(client):
            tally.silent.append({"client": client, "why": silent[client] or "has no examples"})
    return {client: costs[client] for client in tally.cohort if costs.get(client)}


def _costs(plan: Plan, data: ClientData, clients: Sequence[str]) -> dict[str, int]:
    """Return the cost of each client's work."""
    return {client: count_examples(plan.algorithm, each) for client, each in data.counts(clients).items()}


def run_jobs(
    plan: Plan, broadcast: Tree, parts: Iterable[Mapping[str, Assignment]]
) -> Iterator[tuple[Assignment, Reply]]:
    """Run the clients' work on the engine, part by part; yield each reply with the work that it answers."""
    for part in parts:
        for reply in plan.engine.run(plan.algorithms, broadcast, [work.job for work in part.values()]):
            yield part[reply.client], reply
            del reply  # here and wherever replies pass: the next client works in the memory of this one


def _parts(
    plan: Plan, number: int, store: Store, at: Mapping[str, int], borrowed: Tree, clients: ClientData
) -> Iterator[dict[str, Assignment]]:
    """Yield this process's jobs, in parts whose own data fit into `PART_BYTES`."""
    part: dict[str, Assignment] = {}
    size = 0
    for client in (client for client, rank in at.items() if rank == plan.team.rank):
        data = clients.take(client)
        size += _own_bytes(data)
        if part and size > PART_BYTES:
            yield part
            part.clear()  # the receiver may still hold it
            size = _own_bytes(data)
        away = owner(plan.team, client) != plan.team.rank
        state = plan.client_state_from(client, borrowed.get(client) if away else store.get(client))
        architecture = plan.architecture(client)
        secret = plan.example_secret
        job = Job(client, architecture, state["algorithm"], data, plan.seed_set, number, plan.rng_seed, secret)
        part[client] = Assignment(job, state["up"])
    if part:
        yield part


class ClientData:
    """Clients' data in a round. Each client is looked at once, as long as what is made on demand fits."""

    def __init__(self, plan: Plan) -> None:
        self.plan, self.kept, self.size = plan, dict[str, dict[str, Examples]](), 0

    def counts(self, clients: Sequence[str]) -> dict[str, dict[str, int]]:
        """Return client -> the number of examples of each stream."""
        if self.plan.can_count:
            private = dict(zip(clients, sizes(self.plan.clients, clients), strict=True))
            seed_set = len(self.plan.seed_set) if self.plan.seed_set else 0
            streams = self.plan.algorithm.client.streams.items()
            return {c: {k: seed_set if s.source == "seed_set" else private[c] for k, s in streams} for c in clients}
        return {client: {name: len(held) for name, held in self._look_at(client).items()} for client in clients}

    def _look_at(self, client: str) -> dict[str, Examples]:
        """Return the data of a client, and keep them for `take` if they fit."""
        data = self.plan.data(client)
        if self.size + _own_bytes(data) <= PART_BYTES:
            self.size += _own_bytes(data)
            self.kept[client] = data
        return data

    def take(self, client: str) -> dict[str, Examples]:
        """Return the client's data, and keep them no longer."""
        return self.kept.pop(client, None) or self.plan.data(client)


def _own_bytes(data: Mapping[str, Examples]) -> int:
    """Return the bytes that are this client's alone, not part of a shared pool."""
    own = {id(t): t for e in data.values() for t in ((e.x, e.y) if e.rows is None else (e.rows,)) if t is not None}
    return sum(t.numel() * t.element_size() for t in own.values())


def _gather_dicts(team: Team, own: Mapping[str, T]) -> dict[str, T]:
    """Return all processes' entries in one dict. Collective: every process calls it."""
    return {client: value for part in team.gather(dict(own)) for client, value in part.items()}


def _borrow_states(plan: Plan, store: Store, at: Mapping[str, int]) -> Tree:
    """Return the states of clients whose work this process does for their owners.

    Collective: every process calls it.
    """
    team = plan.team
    away = {client: rank for client, rank in at.items() if rank != owner(team, client)}
    if not away or not store.in_use:
        return {}
    own = [client for client in away if client in store]
    return all_to_all(team, [{c: store.get(c) for c in own if away[c] == rank} for rank in range(team.size)])


def has_states(tally: Tally) -> bool:
    """Return whether any client of the round has a new state to keep, in whatever process it worked."""
    return any(answer.stateful for answer in tally.answers)


def return_states(plan: Plan, store: Store, states: Mapping[str, StoredTree], tally: Tally) -> Mapping[str, StoredTree]:
    """Send new states to the clients' owners; return those of this process's own clients.

    Collective: every process calls it.
    """
    team = plan.team
    if team.size == 1 or not has_states(tally):
        return states
    own = {client: held for client, held in states.items() if owns(team, client)}
    parcels = [
        {c: store.read(held) for c, held in states.items() if owner(team, c) == rank != team.rank}
        for rank in range(team.size)
    ]
    return own | {client: store.hold(state) for client, state in all_to_all(team, parcels).items()}
