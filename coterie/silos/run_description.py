"""What a run would do at a silo: what its policy judges, and what a person reads before approving it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

from coterie.core import tree
from coterie.core.engine import Job
from coterie.core.tree import Tree
from coterie.loop.jobs import Assignment
from coterie.loop.plan import Plan
from coterie.loop.secure_round import UNIT_WEIGHTS, Layouts, hides_updates
from coterie.loop.template import Templates

ALSO_LEAVES = (
    "the number of examples of each client, sums of the training loss, sums and counts of each measure on test data, "
    "and the reason where something fails"
)
"""What leaves a silo beside updates, in every run."""


@dataclass(frozen=True)
class Departure:
    """A part of an update, as it leaves a silo.

    Attributes:
        part: its name, such as "delta".
        tensors: how many tensors it has.
        bytes: of their numbers, for each client and round.
        rounds: the first round in which it leaves.
    """

    part: str
    tensors: int
    bytes: int
    from_round: int


@dataclass(frozen=True)
class RunDescription:
    """What a run would do at a silo.

    Attributes:
        run: its name.
        digest: sha256 of the experiment file, in hexadecimal: what an approval is for.
        algorithm: its name in the file, or "package.module:function".
        models: their names in the file, or "package.module:function".
        data: what the silo would train on: names of sources, or "sha256:..." of files.
        rounds: how many there are.
        clients: how many clients the silo hosts.
        leaves: what leaves in a round, for each client.
        message_bytes: of the largest message, about.
        epsilon: the privacy loss that the run allows itself; None where it promises none.
        facts: what would leave before the first round, in sentences, where the silo's people are asked about that; the
            run itself then waits for another approval.
    """

    run: str
    digest: str
    algorithm: str
    models: tuple[str, ...]
    data: tuple[str, ...]
    rounds: int
    clients: int
    leaves: tuple[Departure, ...]
    message_bytes: int
    epsilon: float | None = None
    facts: tuple[str, ...] = ()

    def record(self) -> dict[str, Any]:
        """Return the description as plain values for JSON."""
        return asdict(self)

    def sentences(self) -> list[str]:
        """Return what the run would do, a sentence each, for a person who decides."""
        parts = [
            f"{d.part} ({d.tensors} tensors, {d.bytes:,} bytes{f', from round {d.from_round}' * (d.from_round > 1)})"
            for d in self.leaves
        ]
        privacy = (
            "it bounds no privacy loss" if self.epsilon is None else f"its privacy loss epsilon is {self.epsilon:g}"
        )
        work = [
            f"the run {self.run} trains {', '.join(self.models)} by {self.algorithm} for {self.rounds} rounds",
            f"it reads {', '.join(self.data)} for {self.clients} clients here",
        ]
        if self.facts:
            then = "no update leaves before the run itself is approved, too"
            return [*work, "before its first round it would learn:", *self.facts, then, privacy]
        return [
            *work,
            f"in each round and for each client {' and '.join(parts) or 'no update'} leaves",
            f"{ALSO_LEAVES} leave as well",
            f"the largest message has about {self.message_bytes:,} bytes",
            privacy,
        ]


def description_from(record: Mapping[str, Any]) -> RunDescription:
    """Return the description in a record.

    Raises:
        KeyError, TypeError: the record has another form.
    """
    lists = {name: tuple(record.get(name, ())) for name in ("models", "data", "facts")}
    leaves = tuple(Departure(**each) for each in record["leaves"])
    return RunDescription(**{**record, **lists, "leaves": leaves})


def describe_run(
    plan: Plan,
    run: str,
    digest: str,
    algorithm: str,
    models: Sequence[str],
    data: Sequence[str],
    epsilon: float | None = None,
) -> RunDescription:
    """Return what a run would do at the silo whose plan this is.

    The first rounds and the last are looked at, since an algorithm may have stages. No step is taken.

    Args:
        plan: the silo's.
        run, digest, algorithm, models, data, epsilon: see `RunDescription`.
    """
    found = dict[str, Departure]()
    most = 0
    for round in plan.rounds_of_stages():
        stage = plan.in_round(round)
        down, up = _payloads(stage, round)
        size = max(tree.nbytes(payload) for payload in up)
        most = max(most, tree.nbytes(down), size)
        for payload in up:
            for part, content in payload.items():
                known = found.get(part)
                nbytes = max(tree.nbytes(content), known.bytes if known else 0)
                first = known.from_round if known else round
                found[part] = Departure(part, len(tree.leaves(content)), nbytes, first)
    return RunDescription(
        run=run,
        digest=digest,
        algorithm=algorithm,
        models=tuple(models),
        data=tuple(data),
        rounds=plan.rounds,
        clients=len(plan.ids),
        leaves=tuple(found.values()),
        message_bytes=most * max(1, len(plan.ids)),
        epsilon=epsilon,
    )


def _payloads(plan: Plan, round: int) -> tuple[Tree, list[Tree]]:
    """Return a broadcast, and an honest payload of each architecture, without their numbers."""
    server = plan.algorithm.server
    weights = next(iter(plan.initial.values())) if len(plan.initial) == 1 else None
    broadcast = server.broadcast(server.initial_state(weights, plan.federation()))
    template_of = Templates().of_round(plan, broadcast)
    if hides_updates(plan):
        template_of = Layouts(plan, UNIT_WEIGHTS, template_of, len(plan.ids)).honest_payload
    by_architecture = {plan.architecture(client): client for client in reversed(plan.ids)}
    payloads = []
    for architecture, client in by_architecture.items():
        state = plan.client_state_from(client, None)
        job = Job(client, architecture, state["algorithm"], plan.data(client), plan.seed_set, round, plan.rng_seed)
        payloads.append(template_of(Assignment(job, state["up"])))
    return broadcast, payloads
