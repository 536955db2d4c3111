"""The contract: what an algorithm says about itself, and in which words.

An algorithm is a frozen value of pure functions over trees of tensors. It never knows how many clients run at once, on
which machine or over which wire. One round, for a client i of the cohort:

    B        = broadcast(S)                    what goes down the wire
    carry    = start(B, C_i, ctx)
    carry, _ = step(carry, batch)              K_i times
    U_i, C_i = finish(B, carry, ctx)           U_i is what goes up the wire
    S        = update(S, U, report)            U is the aggregate of the U_i

`start`, `step` and `finish` must not branch in Python on a tensor's value (use `torch.where`): an engine may run them
for many clients at once. The carry is a client's own copy: a step may write into it. B, C_i and S are never written.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Literal, NamedTuple, TypeAlias

from torch import Tensor

from coterie.core.aggregators import Aggregator
from coterie.core.errors import Mistake
from coterie.core.examples import Examples
from coterie.core.task import Batch, Task
from coterie.core.transforms import Transform
from coterie.core.tree import Tree

Weight: TypeAlias = Literal["examples", "processed", "one"]
"""How a subtree of the update is weighted: by the client's number of examples n_i, by the examples that passed through
its steps in the round, or every client alike."""

Logs: TypeAlias = dict[str, Tensor]
"""Sums over a step's examples, [] each; the engine adds them up over steps. "loss" and "count" make the round's
train_loss; any other, over "count", is a measure of the round."""

Batches: TypeAlias = dict[str, Batch]
"""A step's data: one batch per stream."""


class Context(NamedTuple):
    """What a client knows about the round. Numbers are tensors of shape [], so that one compiled step serves all
    rounds.
    """

    round: Tensor  # from 1
    examples: Tensor  # n_i
    steps: Tensor  # K_i
    lr: Tensor  # this round's
    key: Tensor  # int64, for draws of the algorithm's own
    public: Batch | None  # the whole seed set that everyone holds, in its order


class Report(NamedTuple):
    """What the server knows about a round when it updates its state."""

    round: int  # from 1
    reached: int  # clients whose update counts
    population: int  # N
    weights: Mapping[Weight, float]  # the sum over the reached clients of each kind of weight
    key: Tensor | None = None  # int64, for draws of the server's
    public: Batch | None = None  # the whole seed set, where there is one


class Federation(NamedTuple):
    """What the server knows before the first round."""

    ids: Sequence[str]
    examples: Callable[[], int]  # of all clients together; looks at every client, so only who needs it asks
    public: Examples | None  # a seed set that everyone holds


@dataclass(frozen=True)
class Stream:
    """Where a step's examples come from, and how many.

    `batch_size` is a number or "full". `source` "private" is the client's own data, "public" the federation's seed set.
    The first stream of an algorithm sets the number of steps: `epochs` passes over its data, or `steps`. Other streams
    follow it, starting over (in a new order) as often as needed; one that comes `once` is part of the first step alone.
    """

    batch_size: int | Literal["full"] = 32
    epochs: int = 1
    steps: int | None = None
    source: Literal["private", "public"] = "private"
    once: bool = False


def one_architecture(weights: Tree | None) -> Tree:
    """The initial weights, for an algorithm whose server holds a model.

    Raises:
        Mistake: clients differ in architecture, so there are no such weights.
    """
    if weights is None:
        raise Mistake(
            "clients differ in architecture: an algorithm that averages weights needs one model for all of them"
        )
    return weights


def _whole_weights(state: Tree) -> Tree:
    return {"params": state["params"], "buffers": state["buffers"]}


def _initial_weights(weights: Tree | None, federation: Federation) -> Tree:
    return one_architecture(weights)


@dataclass(frozen=True)
class Algorithm:
    """One federated algorithm, bound to one architecture. What has a default suits a server that holds one model.

    Attributes:
        start, step, finish: a client's round; see this module's docstring.
        update: (S, U, report) -> S. Not called in a round that reached no client.
        init: (w0, federation) -> S, everything of the server's that must survive a round. w0 is None where the clients'
            architectures differ.
        client_init: w0 -> C_i, everything of a client's that must survive a round. An empty tree: clients keep nothing.
        broadcast: S -> B.
        personal: (S, C_i) -> {"params", "buffers"} of the model that is evaluated and saved for a client.
        streams: name -> Stream; `step` gets one batch of each.
        weights: the weight of each top-level subtree of U.
        lr: (round) -> learning rate, a float.
        aggregation: how a subtree's aggregator is made from the one the user chose; a subtree not named takes that as
            it is.
        own_models: each client ends with a model of its own, and `personal` depends on C_i.
        predicts: what the model gives is what the labels say, and can be evaluated; not so where it learns without
            them.
        pooled: a baseline that needs all data in one place: the federation is one client that holds everything.
        wire: what is done to its messages before they travel, after whatever the user chose.
        seed_set: it looks at the seed set besides what a stream draws from it, as `Context.public`.
        measures: (S before a round, S after it) -> further numbers of the round, [] each.
        remarks: (rounds) -> what its user should know of a run of so many, a sentence each.
        at: (round) -> what runs in that round, for an algorithm of several stages over one S; see
            `coterie.algorithms.stages`. None: the same in every round.
    """

    start: Callable[[Tree, Tree, Context], Tree]
    step: Callable[[Tree, Batches], tuple[Tree, Logs]]
    finish: Callable[[Tree, Tree, Context], tuple[Tree, Tree]]
    update: Callable[[Tree, Tree, Report], Tree]
    streams: Mapping[str, Stream]
    weights: Mapping[str, Weight]
    lr: Callable[[int], float]
    init: Callable[[Tree | None, Federation], Tree] = _initial_weights
    client_init: Callable[[Tree], Tree] = field(default=lambda weights: {})
    broadcast: Callable[[Tree], Tree] = _whole_weights
    personal: Callable[[Tree, Tree], Tree] = field(default=lambda state, client: _whole_weights(state))
    aggregation: Mapping[str, Callable[[Aggregator], Aggregator]] = field(default_factory=dict)
    own_models: bool = False
    predicts: bool = True
    pooled: bool = False
    wire: Transform | None = None
    seed_set: bool = False
    measures: Callable[[Tree, Tree], Mapping[str, Tensor]] = field(default=lambda before, after: {})
    remarks: Callable[[int], Sequence[str]] = field(default=lambda rounds: ())
    at: Callable[[int], Algorithm] | None = None

    @property
    def needs_seed_set(self) -> bool:
        """Whether there must be a seed set that every client holds."""
        return self.seed_set or any(stream.source == "public" for stream in self.streams.values())


Recipe: TypeAlias = Callable[[Task], Algorithm]
"""An algorithm with its hyper-parameters chosen, before it knows the architecture: `fedavg(lr=0.1)` is one."""
