"""The contract: what an algorithm says about itself, and in which words.

An algorithm is a frozen value of pure functions over trees of tensors. It never knows how many clients run at once, on
which machine, or over which wire. One round, for a client i of the cohort:

    B        = broadcast(S)                    what the server sends down
    carry    = start(B, C_i, ctx)
    carry, _ = step(carry, batches, ctx)       K_i times
    U_i, C_i = finish(B, carry, ctx)           U_i is what the client sends up
    S        = update(S, U, info)              U is the aggregate of the U_i

`start`, `step` and `finish` must not branch in Python on the value of a tensor (use `torch.where`), since an engine may
run them for many clients at once. The carry is a client's own copy, so a step may write into it. B, C_i and S are never
written.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal, NamedTuple, TypeAlias

from torch import Tensor

from coterie.core.aggregators import Aggregator
from coterie.core.errors import Mistake
from coterie.core.examples import Examples
from coterie.core.task import Batch, Task
from coterie.core.transforms import Transform
from coterie.core.tree import Tree

Weighting: TypeAlias = Literal["examples", "processed", "one"]
"""How a part of the update is weighted: by the client's number of examples n_i, by the examples that its steps
processed in the round, or every client alike."""

Logs: TypeAlias = dict[str, Tensor]
"""Sums over a step's examples, [] each; the engine adds them up over steps. "loss" and "count" make the round's
train_loss; any other, over "count", is a measure of the round."""

Check: TypeAlias = Callable[[Any, float], str | None]
"""(a part of an update, a tree or a tensor; how far the codec may have moved a number of it) -> what is wrong with it
in a few words, which come after the part's name; None if an honest client may have sent it."""

Batches: TypeAlias = dict[str, Batch]
"""The data of a step: one batch per stream."""


class Context(NamedTuple):
    """What a client knows about the round.

    Numbers are tensors of shape [], so that one compiled step serves all rounds.
    """

    round: Tensor  # from 1
    examples: Tensor  # n_i
    steps: Tensor  # K_i
    lr: Tensor  # this round's
    key: Tensor  # int64, for draws of the algorithm's own
    seed_set: Batch | None  # the whole seed set that every client holds, in its order


class RoundInfo(NamedTuple):
    """What the server knows about a round when it updates its state."""

    round: int  # from 1
    reached: int  # clients whose update counts
    population: int  # N
    weighting: Mapping[Weighting, float]  # the sum of each kind of weight over the reached clients
    key: Tensor | None = None  # int64, for draws of the server's
    seed_set: Batch | None = None  # the whole seed set, where there is one
    noisy: bool = False  # whether U is a bounded and noised mean, as under a guarantee for clients


class Federation(NamedTuple):
    """What the server knows before the first round."""

    ids: Sequence[str]
    examples: Callable[[], int]  # of all clients together; it looks at every client, so call it only where needed
    seed_set: Examples | None  # that every client holds


@dataclass(frozen=True)
class Stream:
    """Where a step's examples come from, and how many there are.

    `batch_size` is a number or "full". `source` is "private", the client's own data, or "seed_set". The first stream of
    an algorithm sets the number of steps: `epochs` passes over its data, or `steps`. Other streams follow it and start
    over, in a new order, as often as needed. A stream that comes `once` is part of the first step alone.

    With `poisson`, each example is part of each batch with the probability B / n, by itself, so that a batch holds B
    examples on average and may be empty; such a step is a step too. `noise` is how many standard normal numbers come
    with each batch. Both are drawn from the job's secret.
    """

    batch_size: int | Literal["full"] = 32
    epochs: int = 1
    steps: int | None = None
    source: Literal["private", "seed_set"] = "private"
    once: bool = False
    poisson: bool = False
    noise: int = 0

    @property
    def is_full(self) -> bool:
        """Whether a batch holds all examples, so that its length differs from client to client."""
        return self.batch_size == "full"


def one_architecture(weights: Tree | None) -> Tree:
    """Return the weights unchanged; refuse None, which says that clients differ in architecture.

    Raises:
        Mistake: clients differ in architecture, so there are no such weights.
    """
    if weights is None:
        raise Mistake(
            "clients differ in architecture: an algorithm that averages weights needs one model for all of them"
        )
    return weights


def _params_and_buffers(state: Tree) -> Tree:
    return {"params": state["params"], "buffers": state["buffers"]}


def _initial_weights(weights: Tree | None, federation: Federation) -> Tree:
    """Return the initial weights as the server state; refuse None, as `one_architecture` does."""
    return one_architecture(weights)


@dataclass(frozen=True)
class ClientHalf:
    """What happens at a client in a round.

    Attributes:
        start, step, finish: see this module's docstring.
        streams: name -> Stream; `step` gets one batch of each.
        lr: (round) -> learning rate, a float.
        initial_state: w0 -> the first C_i, everything of a client's that must survive a round. An empty tree: clients
            keep nothing.
    """

    start: Callable[[Tree, Tree, Context], Tree]
    step: Callable[[Tree, Batches, Context], tuple[Tree, Logs]]
    finish: Callable[[Tree, Tree, Context], tuple[Tree, Tree]]
    streams: Mapping[str, Stream]
    lr: Callable[[int], float]
    initial_state: Callable[[Tree], Tree] = field(default=lambda weights: {})


def _keep_part(part: Any, broadcast: Tree) -> Any:
    """Return the part unchanged."""
    return part


@dataclass(frozen=True)
class PrivatePart:
    """How a part of an update is protected: as something whose zero says nothing, so that it can be bounded and noised.

    Attributes:
        difference: (the part of U_i, B) -> floats that are 0 where a client says nothing new. Their norm is bounded.
        restore: (their mean, with noise; B) -> the aggregate of the part, mended where noise broke what it satisfies.
    """

    difference: Callable[[Any, Tree], Any] = _keep_part
    restore: Callable[[Any, Tree], Any] = _keep_part


DIFFERENCE = PrivatePart()
"""Of a part that is a difference as it is sent, such as w - w_i."""

UNKNOWN_PARTS = (
    "this algorithm does not say how its updates can be bounded, so nobody would be protected; an algorithm of your "
    "own says it with ServerHalf.private"
)


@dataclass(frozen=True)
class ServerHalf:
    """What happens at the server in a round. The defaults suit a server that holds one model.

    Attributes:
        update: (S, U, info) -> S. It is not called in a round that reached no client.
        weighting: how each top-level part of U_i is weighted.
        initial_state: (w0, federation) -> the first S, everything of the server's that must survive a round. w0 is None
            where the clients' architectures differ.
        broadcast: S -> B.
        evaluated_weights: (S, C_i) -> {"params", "buffers"} of the model that is evaluated and saved for a client.
        checks: part of U_i -> what an honest part satisfies beyond its structure, shapes, types and finite numbers,
            which are checked for all parts. What fails is refused, whoever sent it.
        aggregation: part of U_i -> how its aggregator is made from the one that the user chose. Other parts use the
            chosen one.
        measures: (S before a round, S after it) -> further numbers of the round, [] each.
        private: part of U_i -> how it is protected where a guarantee is given for clients; every part must have one.
            Clients then count alike, whatever `weighting` says, and `info` has the expected numbers. Or a sentence: why
            no guarantee can be given, and what to do.
    """

    update: Callable[[Tree, Tree, RoundInfo], Tree]
    weighting: Mapping[str, Weighting]
    initial_state: Callable[[Tree | None, Federation], Tree] = _initial_weights
    broadcast: Callable[[Tree], Tree] = _params_and_buffers
    evaluated_weights: Callable[[Tree, Tree], Tree] = field(default=lambda state, client: _params_and_buffers(state))
    checks: Mapping[str, Check] = field(default_factory=dict)
    aggregation: Mapping[str, Callable[[Aggregator], Aggregator]] = field(default_factory=dict)
    measures: Callable[[Tree, Tree], Mapping[str, Tensor]] = field(default=lambda before, after: {})
    private: Mapping[str, PrivatePart] | str = UNKNOWN_PARTS

    def aggregator(self, part: str, chosen: Aggregator) -> Aggregator:
        """Return the aggregator of a part of the updates, given the one that the user chose."""
        return self.aggregation[part](chosen) if part in self.aggregation else chosen


@dataclass(frozen=True)
class Traits:
    """What others must know about an algorithm.

    Attributes:
        own_models: each client ends with a model of its own, so `evaluated_weights` depends on C_i.
        predicts: the model's outputs say what the labels say, so they can be evaluated. False where it learns without
            labels.
        pooled: a baseline that needs all data in one place: the federation is one client that holds everything.
        reads_seed_set: it reads the whole seed set, as `Context.seed_set`, besides what a stream draws from it.
        lossy: paths of the subtrees of U_i that a codec may round, or send late, when the user asks for one: parameters
            that the server averages. Not statistics, whose variances could become 0 or negative, nor what must add up
            at the server to what clients keep. What `ServerHalf.checks` judges lies outside them.
        needs_classes: it takes the outputs for scores of classes, of which one is right, as posteriors are.
        given_statistics: BatchNorm layers normalise by given statistics in all of its training and measuring, so that
            no example touches what becomes of another.
    """

    own_models: bool = False
    predicts: bool = True
    pooled: bool = False
    reads_seed_set: bool = False
    lossy: tuple[tuple[str, ...], ...] = (("delta", "params"),)
    needs_classes: bool = False
    given_statistics: bool = False


@dataclass(frozen=True)
class Algorithm:
    """One federated algorithm, bound to one architecture.

    Attributes:
        client, server: the two halves of a round.
        traits: what others must know about it.
        codec: how its updates are encoded before they travel, after what the user chose.
        warnings: (rounds) -> what the user of a run of that many rounds should know, a sentence each.
        stage: (round) -> the algorithm in that round, for one with several stages over one S; see
            `coterie.algorithms.stages`. None: the same in every round.
    """

    client: ClientHalf
    server: ServerHalf
    traits: Traits = Traits()
    codec: Transform | None = None
    warnings: Callable[[int], Sequence[str]] = field(default=lambda rounds: ())
    stage: Callable[[int], Algorithm] | None = None

    @property
    def needs_seed_set(self) -> bool:
        """Whether every client must hold a seed set."""
        return self.traits.reads_seed_set or any(s.source == "seed_set" for s in self.client.streams.values())


Recipe: TypeAlias = Callable[[Task], Algorithm]
"""An algorithm whose hyper-parameters are chosen, before it knows the architecture: `fedavg(lr=0.1)` is one."""
