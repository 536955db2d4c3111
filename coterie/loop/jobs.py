"""Whom a round asks, and what each of them begins with.

In a team, a client's owner looks at its data and keeps its state, and does its work unless the round would become
uneven: then its state goes to another member for this round, and comes back.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import NamedTuple, TypeVar

from coterie.core import tree
from coterie.core.engine import Job, planned_examples
from coterie.core.examples import Examples, sizes
from coterie.core.tree import Tree
from coterie.loop import faults
from coterie.loop.plan import Plan
from coterie.loop.spill import Held
from coterie.loop.store import Store
from coterie.loop.tally import Tally
from coterie.processes.team import Team, all_to_all, owner, owns, shares

T = TypeVar("T")


class Asked(NamedTuple):
    """A client's work in a round."""

    job: Job
    codec_state: Tree  # what the codec kept at the client


AT_ONCE = 2**25
"""Bytes of examples made on demand that a part of the cohort may hold. A part is one call of the engine, so this must
not depend on the machine."""


def ask(plan: Plan, number: int, broadcast: Tree, store: Store, tally: Tally) -> Iterator[dict[str, Asked]]:
    """The work of those clients of the cohort that will answer, in its order, of this member's share. It comes in
    parts, so that memory does not grow with the cohort. Collective, up to the first part.
    """
    tally.cohort = plan.cohort.draw(plan.ids, plan.rng_seed, number, plan.available)
    tally.bytes_down = tree.nbytes(broadcast) * len(tally.cohort)
    silent = {client: faults.WHY.get(plan.faults.of(plan.rng_seed, number, client)) for client in tally.cohort}
    looks = _Looks(plan)
    mine = looks.counts([c for c in tally.cohort if silent[c] is None and owns(plan.team, c)])
    costs = _known(plan.team, {client: planned_examples(plan.algorithm, each) for client, each in mine.items()})
    for client in tally.cohort:
        if not costs.get(client):
            tally.silent.append({"client": client, "why": silent[client] or "has no examples"})
    at = shares({client: costs[client] for client in tally.cohort if costs.get(client)}, plan.team)
    return _parts(plan, number, store, at, _lent(plan, store, at), looks)


def _parts(
    plan: Plan, number: int, store: Store, at: Mapping[str, int], lent: Tree, looks: _Looks
) -> Iterator[dict[str, Asked]]:
    part: dict[str, Asked] = {}
    size = 0
    for client in (client for client, member in at.items() if member == plan.team.rank):
        data = looks.at(client)
        size += _made(data)
        if part and size > AT_ONCE:
            yield part
            part.clear()  # whoever was given it may hold it still
            size = _made(data)
        away = owner(plan.team, client) != plan.team.rank
        state = plan.begun(client, lent.get(client) if away else store.get(client))
        architecture = plan.architecture(client)
        job = Job(client, architecture, state["algorithm"], data, plan.seed_set, number, plan.rng_seed)
        part[client] = Asked(job, state["up"])
    if part:
        yield part


class _Looks:
    """Looks at clients' data: one for each client, as long as what has been made on demand fits."""

    def __init__(self, plan: Plan) -> None:
        self.plan, self.kept, self.size = plan, dict[str, dict[str, Examples]](), 0

    def counts(self, clients: Sequence[str]) -> dict[str, dict[str, int]]:
        """client -> the number of examples of each stream."""
        if self.plan.counted:
            private = dict(zip(clients, sizes(self.plan.clients, clients), strict=True))
            seed_set = len(self.plan.seed_set) if self.plan.seed_set else 0
            streams = self.plan.algorithm.client.streams.items()
            return {c: {k: seed_set if s.source == "seed_set" else private[c] for k, s in streams} for c in clients}
        return {client: {name: len(held) for name, held in self._first(client).items()} for client in clients}

    def _first(self, client: str) -> dict[str, Examples]:
        data = self.plan.data(client)
        if self.size + _made(data) <= AT_ONCE:
            self.size += _made(data)
            self.kept[client] = data
        return data

    def at(self, client: str) -> dict[str, Examples]:
        """The client's data, for the last time."""
        return self.kept.pop(client, None) or self.plan.data(client)


def _made(data: Mapping[str, Examples]) -> int:
    """Bytes that are this client's alone."""
    own = {id(t): t for e in data.values() for t in ((e.x, e.y) if e.rows is None else (e.rows,)) if t is not None}
    return sum(t.numel() * t.element_size() for t in own.values())


def _known(team: Team, mine: Mapping[str, T]) -> dict[str, T]:
    """What the members know about their own clients, together. Collective."""
    return {client: fact for part in team.gather(dict(mine)) for client, fact in part.items()}


def _lent(plan: Plan, store: Store, at: Mapping[str, int]) -> Tree:
    """The states of clients whose work this member does for their owners. Collective."""
    team = plan.team
    away = {client: member for client, member in at.items() if member != owner(team, client)}
    if not away:
        return {}
    mine = [client for client in away if client in store]
    return all_to_all(team, [{c: store.get(c) for c in mine if away[c] == member} for member in range(team.size)])


def brought_home(plan: Plan, store: Store, states: Mapping[str, Held], tally: Tally) -> Mapping[str, Held]:
    """The new states of this member's own clients, whoever did their work. Collective."""
    team = plan.team
    if team.size == 1 or not any(answer.stateful for answer in tally.answers):
        return states
    own = {client: held for client, held in states.items() if owns(team, client)}
    parcels = [
        {c: store.read(held) for c, held in states.items() if owner(team, c) == member != team.rank}
        for member in range(team.size)
    ]
    return own | {client: store.hold(state) for client, state in all_to_all(team, parcels).items()}
