"""What goes into a federation and what comes out of each of its rounds, as plain values."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, Protocol, cast

from torch import Tensor

from coterie.core import tree
from coterie.core.aggregators import Aggregator, Sum
from coterie.core.algorithm import Algorithm, Federation, Recipe, Weighting
from coterie.core.engine import Engine
from coterie.core.errors import Mistake
from coterie.core.examples import Clients, Counted, Examples, sizes
from coterie.core.task import Task
from coterie.core.transforms import Transform, identity
from coterie.core.tree import Tree
from coterie.loop.attack import Attack
from coterie.loop.cohort import Available, Cohort
from coterie.loop.evaluate import Evaluation
from coterie.loop.faults import Faults
from coterie.loop.store import Store
from coterie.processes.team import ALONE, Team, owner, owns


@dataclass(frozen=True)
class Plan:
    """A federation, ready to run. `coterie.federate` makes one from a model and an algorithm.

    Attributes:
        recipe: the algorithm before it knew the architectures.
        tasks, algorithms, initial: by architecture; one entry, or several where clients' models differ.
        architecture: client -> its architecture.
        clients: client -> training data, possibly lazy. ids: the clients in their order.
        codec: how an update is encoded before it travels.
        seed_set: a seed set that everyone holds.
        attack: what some of the clients do to harm the others.
        probe: what looks at some rounds more closely.
        team: the processes that run this plan together.
    """

    recipe: Recipe
    tasks: Mapping[str, Task]
    algorithms: Mapping[str, Algorithm]
    initial: Mapping[str, Tree]
    architecture: Callable[[str], str]
    clients: Clients
    ids: Sequence[str]
    engine: Engine
    rounds: int
    rng_seed: int = 0
    cohort: Cohort = field(default_factory=Cohort)
    available: Available | None = None
    aggregator: Aggregator = field(default_factory=Sum)
    codec: Transform = field(default_factory=identity)
    faults: Faults = field(default_factory=Faults)
    evaluation: Evaluation = field(default_factory=Evaluation)
    seed_set: Examples | None = None
    attack: Attack | None = None
    probe: Probe | None = None
    team: Team = ALONE

    @property
    def algorithm(self) -> Algorithm:
        """The server's half, which all architectures share."""
        return next(iter(self.algorithms.values()))

    def at(self, round: int) -> Plan:
        """The plan with the algorithms as they are in this round."""
        if all(algorithm.stage is None for algorithm in self.algorithms.values()):
            return self
        return replace(self, algorithms={name: a.stage(round) if a.stage else a for name, a in self.algorithms.items()})

    def attackers(self) -> frozenset[str]:
        """The clients that attack; nobody without an attack.

        Raises:
            Mistake: nobody would be left to be honest.
        """
        return self.attack.attackers(self.ids, self.rng_seed) if self.attack else frozenset()

    def federation(self) -> Federation:
        """What the server may know before the first round."""
        return Federation(self.ids, lambda: sum(sizes(self.clients, self.ids)), self.seed_set)

    @property
    def counted(self) -> bool:
        """Whether clients' examples can be counted without being made."""
        return isinstance(self.clients, Counted) and (self.attack is None or self.attack.poison is None)

    def data(self, client: str) -> dict[str, Examples]:
        """What the client's steps draw from: one entry per stream of the algorithm.

        Raises:
            Mistake: the algorithm needs a seed set and there is none.
        """
        streams = self.algorithm.client.streams.items()
        if not self.seed_set and self.algorithm.needs_seed_set:
            raise Mistake("this algorithm needs a seed set that every client holds: give one as `seed_set`")
        own = self.clients[client]  # once: a lazy mapping makes them anew at every look
        if self.attack is not None and self.attack.poison is not None and client in self.attackers():
            own = self.attack.poison(own, self.tasks[self.architecture(client)].num_classes)
        return {
            name: self.seed_set if stream.source == "seed_set" and self.seed_set else own for name, stream in streams
        }

    def placed(self, state: Tree) -> Tree:
        """A server state from a disk, where the engine computes; single numbers go with tensors on any device."""
        return tree.map(lambda x: x.to(self.engine.device) if x.dim() else x, state)

    def begun(self, client: str, kept: Tree | None) -> Tree:
        """{"algorithm": C_i, "up": what the transform kept}: what was kept, or as a client begins."""
        if kept is not None:
            return tree.map(lambda x: x.to(self.engine.device), kept)  # it may come from a disk, or another process
        architecture = self.architecture(client)
        return {"algorithm": self.algorithms[architecture].client.initial_state(self.initial[architecture]), "up": {}}

    def client_state(self, store: Store, client: str) -> Tree:
        """{"algorithm": C_i, "up": what the transform kept}: from the store, or as a client begins.

        Raises:
            LookupError: another member of the team keeps it.
        """
        if not owns(self.team, client):
            raise LookupError(
                f"process {owner(self.team, client)} of {self.team.size} keeps the state of client {client}"
            )
        return self.begun(client, store.get(client))

    def personal(self, state: Tree, store: Store, client: str) -> Tree:
        """{"params", "buffers"} of the model that counts for this client.

        Raises:
            LookupError: it depends on the client's state, and another member of the team keeps that.
        """
        algorithm = self.algorithms[self.architecture(client)]
        of_its_own = algorithm.traits.own_models or algorithm.traits.pooled
        kept = self.client_state(store, client) if of_its_own else self.begun(client, None)
        return algorithm.server.evaluated_weights(state, kept["algorithm"])


@dataclass(frozen=True)
class Resume:
    """Where a stopped run continues: after `round`, from its server state and the clients' states."""

    round: int
    state: Tree
    store: Store
    elapsed: float = 0.0


@dataclass(frozen=True)
class Round:
    """What one round was. `record` is what a run folder keeps of it.

    Attributes:
        seconds: the round's duration without evaluation. elapsed: seconds since the run began, evaluation included.
        reached: clients whose update counts. dropped: {"client", "why"} of each that does not.
        bytes_up, bytes_down: summed over the cohort.
        measures: train_loss, test_loss, test_accuracy and what else was measured, each a number, but for
            "accuracy_matrix" (see `coterie.loop.domains`); None where it was not.
        state, store: the server's state and the clients' after the round; not to be written into. A round that is kept
            keeps them in memory. before: the server's state before the round.
        client_weights: each reached client's weight, of every kind, in the cohort's order.
        updates: the accepted updates by client, in the cohort's order, if asked for.
    """

    round: int
    seconds: float
    elapsed: float
    cohort: Sequence[str]
    reached: int
    dropped: Sequence[Mapping[str, str]]
    bytes_up: int
    bytes_down: int
    measures: Mapping[str, Any]
    state: Tree
    store: Store
    plan: Plan
    updates: Mapping[str, Tree] | None = None
    before: Tree = field(default_factory=dict)
    client_weights: Mapping[str, Mapping[Weighting, float]] = field(default_factory=dict)

    @property
    def train_loss(self) -> float | None:
        """Mean over the examples that the reached clients processed, at the weights they then had."""
        return cast(float | None, self.measures["train_loss"])

    @property
    def test_loss(self) -> float | None:
        """Mean over the test data, or None."""
        return cast(float | None, self.measures["test_loss"])

    @property
    def test_accuracy(self) -> float | None:
        """On the test data of all, or None."""
        return cast(float | None, self.measures["test_accuracy"])

    def weights(self, client: str | None = None) -> dict[str, Tensor]:
        """Parameters and buffers by their names in the model's `state_dict`: of the global model, or of one client's
        own.
        """
        client = self.plan.ids[0] if client is None else client
        task = self.plan.tasks[self.plan.architecture(client)]
        return task.state_dict(self.plan.personal(self.state, self.store, client))

    def record(self) -> dict[str, object]:
        """The round as plain numbers, in the order of a run folder's `rounds.jsonl`."""
        return {
            "round": self.round,
            "seconds": self.seconds,
            "elapsed": self.elapsed,
            "cohort_size": len(self.cohort),
            "reached": self.reached,
            "dropped": [dict(d) for d in self.dropped],
            "bytes_up": self.bytes_up,
            "bytes_down": self.bytes_down,
            **self.measures,
        }


class Probe(Protocol):
    """Something that looks at some rounds more closely than others, and so has their clients' updates kept."""

    def extend_algorithm(self, algorithm: Recipe) -> Recipe:
        """The algorithm, its server keeping what the probe has to look back at."""

    def check_plan(self, plan: Plan) -> None:
        """Check that a federation has what it needs.

        Raises:
            Mistake: it has not.
        """

    def due(self, round: int, last: int) -> bool:
        """Whether it looks at this round."""

    def __call__(self, round: Round) -> Mapping[str, Any]:
        """Further measures of a round that has its updates. Collective."""
