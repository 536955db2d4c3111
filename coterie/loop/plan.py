"""The plan of a federation, and the record of each of its rounds, as plain values."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any, Protocol, cast

from torch import Tensor

from coterie.core import tree
from coterie.core.aggregators import Aggregator, Sum
from coterie.core.algorithm import Algorithm, Federation, Recipe, Weighting
from coterie.core.engine import Engine
from coterie.core.errors import Mistake, mistakes_in
from coterie.core.examples import Clients, Counted, Examples, sizes
from coterie.core.html_card import html_card
from coterie.core.task import Task
from coterie.core.transforms import Transform, identity
from coterie.core.tree import Tree
from coterie.loop.attack import Attack, Poison
from coterie.loop.check_model import require_examples
from coterie.loop.cohort import Available, Cohort
from coterie.loop.evaluate import Evaluation
from coterie.loop.faults import Faults
from coterie.loop.store import Store
from coterie.privacy.table import Privacy
from coterie.processes.team import ALONE, Team, owner, owns

if TYPE_CHECKING:
    from coterie.loop.workplace import Workplace


@dataclass(frozen=True)
class Plan:
    """A federation, ready to run. `coterie.plan` makes one from a model and an algorithm.

    Attributes:
        recipe: the algorithm before it knows the architectures.
        tasks, algorithms, initial: by architecture; several entries if clients' models differ. `initial` holds the
            first weights, {"params", "buffers"}.
        architecture: client -> its architecture.
        clients: client -> training data, possibly lazy. ids: the clients in their order.
        seed_set: the seed set that every client holds, or None.
        engine: runs the clients' work. team: the processes that run this plan together.
        rounds, rng_seed: how many rounds, and the seed of everything random.
        cohort: how many clients a round asks. available: whether a client can be asked in a round; None: always.
        all_silos_cohort: how many clients a round asks of all silos, at one that is told so; None: what `cohort` says.
        aggregator: how updates become one.
        codec: how an update is encoded before it travels.
        faults, attack: what the cohort suffers, and what some clients do to harm the others.
        evaluation: what is evaluated, and when.
        probe: measures some rounds more closely.
        privacy: the guarantee that the run gives clients or single examples, with its noise multiplier and its delta,
            and whether sums are secret.
        secret: from which all draws of a guarantee derive, unless `Privacy.noise` says the rng seed.
        workplace: where the clients work and are measured; None: here, on the engine.
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
    all_silos_cohort: int | None = None
    available: Available | None = None
    aggregator: Aggregator = field(default_factory=Sum)
    codec: Transform = field(default_factory=identity)
    faults: Faults = field(default_factory=Faults)
    evaluation: Evaluation = field(default_factory=Evaluation)
    seed_set: Examples | None = None
    attack: Attack | None = None
    probe: Probe | None = None
    team: Team = ALONE
    privacy: Privacy | None = None
    secret: str = field(default="", repr=False)
    workplace: Workplace | None = None

    def _repr_html_(self) -> str:
        """Return the plan as a table, for notebooks."""
        parameters = [sum(p.numel() for p in tree.leaves(each["params"])) for each in self.initial.values()]
        rows = {
            "clients": len(self.ids),
            "clients in a round": self.cohort.count(len(self.ids)),
            "rounds": self.rounds,
            "parameters": ", ".join(f"{number:,}" for number in parameters),
            "engine": f"{type(self.engine).__name__} on {self.engine.device}",
            "aggregation": type(self.aggregator).__name__,
            "test examples": None if self.evaluation.test is None else len(self.evaluation.test),
            "evaluated every": f"{self.evaluation.every} rounds",
            "privacy": None if self.privacy is None else self.privacy.unit,
            "rng seed": self.rng_seed,
        }
        return html_card("Federation", rows)

    @property
    def algorithm(self) -> Algorithm:
        """The algorithm of the first architecture. The server's half and the traits are the same for all of them."""
        return next(iter(self.algorithms.values()))

    def in_round(self, round: int) -> Plan:
        """Return the plan with the algorithms of this round's stage."""
        if all(algorithm.stage is None for algorithm in self.algorithms.values()):
            return self
        return replace(self, algorithms={name: a.stage(round) if a.stage else a for name, a in self.algorithms.items()})

    def rounds_of_stages(self) -> list[int]:
        """Return rounds that between them show all that an algorithm in stages asks: the first three and the last."""
        return sorted({1, min(2, self.rounds), min(3, self.rounds), self.rounds})

    def cohort_size(self) -> int:
        """Return how many clients a round asks.

        Raises:
            Mistake: there are fewer clients.
        """
        with mistakes_in("cohort"):
            return self.cohort.count(len(self.ids))

    @property
    def guarantee(self) -> Privacy | None:
        """What is promised to each client, with its noise; None where nothing is."""
        return self._promise_to("client")

    @property
    def example_privacy(self) -> Privacy | None:
        """What is promised for each example, with its noise; None where nothing is."""
        return self._promise_to("example")

    @property
    def either_guarantee(self) -> Privacy | None:
        """What is promised to each client, or for each example; None where nothing is."""
        return self.guarantee or self.example_privacy

    def _promise_to(self, unit: str) -> Privacy | None:
        return None if self.privacy is None or self.privacy.unit != unit else self.privacy

    @property
    def secret_seed(self) -> int | str:
        """What the draws of a guarantee derive from: the secret, or the rng seed where there is none to keep."""
        hidden = self.guarantee is not None and self.guarantee.noise == "secret"
        return self.secret if hidden else self.rng_seed

    def draw_cohort(self, round: int) -> list[str]:
        """Return the clients that a round asks, in their order. Under a guarantee nobody can know them beforehand."""
        return self.cohort.draw(self.ids, self.secret_seed, round, self.available)

    @property
    def example_secret(self) -> str | None:
        """What Poisson batches and the noise of gradients are drawn from; None without a guarantee for examples."""
        privacy = self.example_privacy
        return None if privacy is None else self.secret if privacy.noise == "secret" else f"rng seed {self.rng_seed}"

    def attackers(self) -> frozenset[str]:
        """Return the clients that attack, which are none without an attack.

        Raises:
            Mistake: no client would be honest.
        """
        with mistakes_in("attack"):
            return self.attack.attackers(self.ids, self.rng_seed) if self.attack else frozenset()

    def federation(self) -> Federation:
        """Return what the server knows before the first round."""
        return Federation(self.ids, lambda: sum(sizes(self.clients, self.ids)), self.seed_set)

    @property
    def can_count(self) -> bool:
        """Whether clients' examples can be counted without being made."""
        return isinstance(self.clients, Counted) and (self.attack is None or self.attack.poison is None)

    def data(self, client: str) -> dict[str, Examples]:
        """Return the examples that the client's steps draw from: one entry per stream of the algorithm.

        Raises:
            Mistake: the algorithm needs a seed set, and the plan has none.
        """
        streams = self.algorithm.client.streams.items()
        if not self.seed_set and self.algorithm.needs_seed_set:
            raise Mistake("this algorithm needs a seed set that every client holds: give one as `seed_set`")
        own = require_examples(client, self.clients[client])  # once: a lazy mapping makes them again at each look
        if self.attack is not None and self.attack.poison is not None and client in self.attackers():
            with mistakes_in("attack"):
                own = _poison(self.attack.poison, own, self.tasks[self.architecture(client)].num_classes)
        return {
            name: self.seed_set if stream.source == "seed_set" and self.seed_set else own for name, stream in streams
        }

    def to_device(self, state: Tree) -> Tree:
        """Move a loaded server state to the engine's device."""
        return tree.map(lambda x: x.to(self.engine.device), state)

    def client_state_from(self, client: str, stored: Tree | None) -> Tree:
        """Return {"algorithm": C_i, "up": the codec's state}: the stored one, or the client's initial state."""
        if stored is not None:
            return tree.map(lambda x: x.to(self.engine.device), stored)  # from a disk or another process, perhaps
        architecture = self.architecture(client)
        return {"algorithm": self.algorithms[architecture].client.initial_state(self.initial[architecture]), "up": {}}

    def client_state(self, store: Store, client: str) -> Tree:
        """Return {"algorithm": C_i, "up": the codec's state} from the store, or the client's initial state, as a copy.

        Raises:
            LookupError: another process keeps it, or the place where the client works.
        """
        return tree.clone(self._state_of(store, client))

    def _state_of(self, store: Store, client: str) -> Tree:
        """Return a client's state as the run keeps it; see `client_state`."""
        if self.workplace is not None:
            raise LookupError(f"the state of client {client} is kept where the client works, not here")
        if not owns(self.team, client):
            raise LookupError(
                f"process {owner(self.team, client)} of {self.team.size} keeps the state of client {client}"
            )
        return self.client_state_from(client, store.get(client))

    def evaluated_weights(self, state: Tree, store: Store, client: str) -> Tree:
        """Return {"params", "buffers"} of the model that is evaluated and saved for this client.

        Raises:
            LookupError: it depends on the client's state, and that is kept elsewhere.
        """
        algorithm = self.algorithms[self.architecture(client)]
        needs_state = algorithm.traits.own_models or algorithm.traits.pooled
        own = self._state_of(store, client) if needs_state else self.client_state_from(client, None)
        return algorithm.server.evaluated_weights(state, own["algorithm"])


def _poison(poison: Poison, examples: Examples, num_classes: int | None) -> Examples:
    """Return what an attacker trains on.

    Raises:
        Mistake: the attack has written into the examples, which other clients may share.
    """
    given = [x for x in (examples.x, examples.y) if x is not None]
    before = [x._version for x in given]
    changed = poison(examples, num_classes)
    if [x._version for x in given] != before:
        raise Mistake("`poison` writes into the examples that it gets, which others share; let it return new ones")
    return changed


@dataclass(frozen=True)
class Resume:
    """Where a stopped run continues: after `round`, from its server state and the clients' states."""

    round: int
    state: Tree
    store: Store
    elapsed: float = 0.0


@dataclass(frozen=True)
class Round:
    """The record of one round. A run folder keeps what `record` returns.

    Attributes:
        round: the round's number, from 1. cohort: the clients that were asked.
        seconds: the round's duration without evaluation. elapsed: seconds since the run began, evaluation included.
        reached: how many clients' updates count. dropped: {"client", "why"} of each client whose update does not.
        bytes_up, bytes_down: summed over the cohort.
        measures: train_loss, test_loss, test_accuracy and what else was measured; None for what was not. Each is a
            number, except "accuracy_matrix" (see `coterie.loop.domains`).
        state, store: the server's state and the clients' after the round: the run's own, so never write into them. They
            stay in memory for as long as the round does. before: the server's state before the round.
        plan: the plan in this round.
        client_weights: each reached client's weight, of every kind, in the cohort's order.
        updates: the accepted updates by client, in the cohort's order, if they were asked for.
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
        """Mean loss over the examples that the reached clients processed, each at the weights of its step."""
        return cast(float | None, self.measures["train_loss"])

    @property
    def test_loss(self) -> float | None:
        """Mean loss on the test data of all, or None."""
        return cast(float | None, self.measures["test_loss"])

    @property
    def test_accuracy(self) -> float | None:
        """Accuracy on the test data of all, or None."""
        return cast(float | None, self.measures["test_accuracy"])

    def weights(self, client: str | None = None) -> dict[str, Tensor]:
        """Return copies of the weights that a client is evaluated with, by their names in the model's `state_dict`.

        They are those of the server's model, or of the client's own where clients have models of their own.

        Args:
            client: its id; by default the first client's.
        """
        client = self.plan.ids[0] if client is None else client
        task = self.plan.tasks[self.plan.architecture(client)]
        named = task.state_dict(self.plan.evaluated_weights(self.state, self.store, client))
        copies = {id(x): x.detach().clone() for x in named.values()}  # tied names share one, as in the model
        return {name: copies[id(x)] for name, x in named.items()}

    def _repr_html_(self) -> str:
        """Return the round as a table, for notebooks; measures that are no single number are left out."""
        numbers = {k.replace("_", " "): v for k, v in self.measures.items() if isinstance(v, int | float)}
        rows = {
            **numbers,
            "clients that count": f"{self.reached} of {len(self.cohort)}",
            "bytes up": self.bytes_up,
            "bytes down": self.bytes_down,
            "seconds": self.seconds,
        }
        return html_card(f"Round {self.round} of {self.plan.rounds}", rows)

    def record(self) -> dict[str, object]:
        """Return the round as plain numbers, in the order of a run folder's `rounds.jsonl`."""
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
    """A measure of some rounds that needs their clients' updates, so the loop keeps these for it."""

    def extend_algorithm(self, algorithm: Recipe) -> Recipe:
        """Return the algorithm with what the probe needs in its server state."""

    def check_plan(self, plan: Plan) -> None:
        """Check that a federation has what the probe needs.

        Raises:
            Mistake: something is missing.
        """

    def due(self, round: int, last: int) -> bool:
        """Return whether this round is probed."""

    def __call__(self, round: Round) -> Mapping[str, Any]:
        """Measure a round that has its updates; return the measures by name. Collective: every process calls it."""
