"""What most algorithms share: local stochastic gradient descent, and the difference it made.

Conventions are those of `torch.optim.SGD`: the gradient's norm is clipped first, then weight decay is added, then
momentum.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal, NotRequired, SupportsIndex, TypedDict

from coterie.core import tree
from coterie.core.algorithm import Batches, Context, Logs, Stream
from coterie.core.errors import require
from coterie.core.task import Task
from coterie.core.tree import Tree


class LocalOptions(TypedDict):
    """The keyword arguments that every algorithm with local training takes; see `LocalSGD`."""

    lr: float
    local_epochs: NotRequired[int]
    local_steps: NotRequired[int | None]
    batch_size: NotRequired[int | Literal["full"]]
    momentum: NotRequired[float]
    weight_decay: NotRequired[float]
    lr_decay: NotRequired[float]
    clip_norm: NotRequired[float | None]
    keep_momentum: NotRequired[bool]


@dataclass(frozen=True)
class LocalSGD:
    """How a client trains.

    Attributes:
        lr: learning rate in the first round; it is multiplied by `lr_decay` after each round.
        local_epochs: passes over the client's data in a round, unless `local_steps` sets the number of steps.
        batch_size: examples per step, or "full".
        momentum, weight_decay: as in `torch.optim.SGD`, on parameters.
        clip_norm: the largest Euclidean norm of a step's gradient over all parameters.
        keep_momentum: carry the momentum over to the client's next round, instead of starting at zero.

    Raises:
        Mistake: a value is out of its range.
    """

    lr: float
    local_epochs: int = 1
    local_steps: int | None = None
    batch_size: int | Literal["full"] = 32
    momentum: float = 0.0
    weight_decay: float = 0.0
    lr_decay: float = 1.0
    clip_norm: float | None = None
    keep_momentum: bool = False

    def __post_init__(self) -> None:
        require("lr", self.lr, 0 < self.lr < float("inf"), "a number above 0")
        epochs, steps, whole = self.local_epochs, self.local_steps, "a whole number, 1 or more"
        require("local_epochs", epochs, isinstance(epochs, SupportsIndex) and epochs >= 1, whole)
        require("local_steps", steps, steps is None or (isinstance(steps, SupportsIndex) and steps >= 1), whole)
        size = self.batch_size
        require("batch_size", size, size == "full" or (isinstance(size, int) and size >= 1), '1 or more, or "full"')
        require("momentum", self.momentum, 0 <= self.momentum < 1, "from 0 to below 1")
        require("weight_decay", self.weight_decay, 0 <= self.weight_decay < float("inf"), "0 or more")
        require("lr_decay", self.lr_decay, 0 < self.lr_decay <= 1, "above 0 and at most 1")
        require("clip_norm", self.clip_norm, self.clip_norm is None or self.clip_norm > 0, "above 0")

    def rate(self, round: int) -> float:
        """The learning rate of a round, counted from 1."""
        return self.lr * self.lr_decay ** (round - 1)

    def stream(self) -> Stream:
        """The client's own data, as these settings cut it."""
        return Stream(self.batch_size, self.local_epochs, self.local_steps)

    def initial_carry(self, weights: Tree, state: Tree) -> Tree:
        """The carry before the first step: weights, and momentum where there is any."""
        carry = {"params": weights["params"], "buffers": weights["buffers"]}
        if self.momentum:
            carry["momentum"] = state.get("momentum", tree.zeros_like(weights["params"]))
        return carry

    def descend(self, carry: Tree, grads: Tree, buffers: Tree, ctx: Context) -> Tree:
        """w <- w - lr * direction(grads), with the buffers that the forward gave."""
        params = carry["params"]
        if self.clip_norm is not None:
            grads = clip_to_norm(grads, self.clip_norm)
        if self.weight_decay:
            grads = tree.add(grads, params, self.weight_decay)
        after = {**carry, "buffers": buffers}
        if self.momentum:
            grads = after["momentum"] = tree.add(grads, carry["momentum"], self.momentum)
        after["params"] = tree.add(params, grads, -ctx.lr)
        return after

    def client_state(self, carry: Tree) -> Tree:
        """What the client keeps for its next round."""
        return {"momentum": carry["momentum"]} if self.keep_momentum and self.momentum else {}

    def initial_client_state(self, weights: Tree) -> Tree:
        """What a client that never took part keeps."""
        return {"momentum": tree.zeros_like(weights["params"])} if self.keep_momentum and self.momentum else {}


Correct = Callable[[Tree, Tree], Tree]
"""(gradient, carry) -> the gradient that is descended."""


def local_step(
    task: Task, local: LocalSGD, correct: Correct | None = None
) -> Callable[[Tree, Batches, Context], tuple[Tree, Logs]]:
    """One step on a batch of the stream "private"; `correct` may add a term of its own to the gradient."""

    def step(carry: Tree, batch: Batches, ctx: Context) -> tuple[Tree, Logs]:
        grads, buffers, logs = task.gradient(carry["params"], carry["buffers"], batch["private"])
        return local.descend(carry, grads if correct is None else correct(grads, carry), buffers, ctx), logs

    return step


def clip_to_norm(vector: Tree, length: float) -> Tree:
    """The same direction, no longer than `length` in the Euclidean norm over all leaves."""
    return tree.scale(vector, (length / tree.norm(vector).clamp(min=1e-12)).clamp(max=1.0))


def delta(broadcast: Tree, carry: Tree) -> Tree:
    """w - w_i: parameters and float buffers. Integer buffers, such as a count of batches, are not averaged and do not
    travel.
    """
    before = {"params": broadcast["params"], "buffers": tree.floats(broadcast["buffers"])}
    return tree.map(lambda w, w_i: w - w_i, before, {"params": carry["params"], "buffers": carry["buffers"]})


def apply_delta(weights: Tree, params: Tree, buffers: Tree) -> Tree:
    """New server weights: these parameters, and the float buffers less the averaged difference `buffers`."""
    after = {name: b - buffers[name] if name in buffers else b for name, b in weights["buffers"].items()}
    return {"params": params, "buffers": after}
