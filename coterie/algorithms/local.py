"""What most algorithms share: local stochastic gradient descent, and the difference that it made."""

from __future__ import annotations

from collections.abc import Callable
from typing import Unpack, cast

from coterie.algorithms.local_options import LocalOptions
from coterie.algorithms.optimizers import sgd
from coterie.core import tree
from coterie.core.algorithm import Batches, Context, Logs, Stream
from coterie.core.options import complete_options
from coterie.core.task import Task
from coterie.core.tree import Tree


class LocalSGD:
    """How a client trains, as algorithms take it.

    Args:
        **options: see `LocalOptions`, where each is written with its range, its default and its meaning.

    Attributes:
        options: all options, with the defaults of those that were left out.
        optimizer: how weights move in a local step.

    Raises:
        Mistake: an option is unknown, missing, or out of its range.
    """

    def __init__(self, **options: Unpack[LocalOptions]) -> None:
        self.options = cast(LocalOptions, complete_options(LocalOptions, options))
        self.optimizer = sgd(
            momentum=self.options["momentum"],
            weight_decay=self.options["weight_decay"],
            clip_norm=self.options["clip_norm"],
        )

    def lr(self, round: int) -> float:
        """Return the learning rate of a round, counted from 1."""
        return self.options["lr"] * self.options["lr_decay"] ** (round - 1)

    def stream(self) -> Stream:
        """Return the stream of the client's own data, cut into batches as the options say."""
        return Stream(self.options["batch_size"], self.options["local_epochs"], self.options["local_steps"])

    def initial_carry(self, weights: Tree, client_state: Tree) -> Tree:
        """Return the carry before the first step: weights, and the optimiser's state, kept or initial."""
        initial = self.optimizer.init(weights["params"])
        state = {name: client_state.get(name, part) for name, part in initial.items()}
        return {"params": weights["params"], "buffers": weights["buffers"], "optimizer": state}

    def descend(self, carry: Tree, gradient: Tree, buffers: Tree, ctx: Context) -> Tree:
        """Return the carry after a step along the gradient, with the buffers that the forward gave."""
        params, state = self.optimizer.apply(carry["params"], gradient, carry["optimizer"], ctx.lr)
        return {**carry, "params": params, "buffers": buffers, "optimizer": state}

    def client_state(self, carry: Tree) -> Tree:
        """Return what the client keeps for its next round: the optimiser's state with `keep_momentum`, or nothing."""
        kept: Tree = carry["optimizer"] if self.options["keep_momentum"] else {}
        return kept

    def initial_client_state(self, weights: Tree) -> Tree:
        """Return what the client keeps before its first round: with `keep_momentum` the optimiser's state, or {}."""
        return self.optimizer.init(weights["params"]) if self.options["keep_momentum"] else {}


Correct = Callable[[Tree, Tree], Tree]
"""(gradient, carry) -> the gradient that is descended."""


def local_step(
    task: Task, local: LocalSGD, correct: Correct | None = None
) -> Callable[[Tree, Batches, Context], tuple[Tree, Logs]]:
    """Return an algorithm's `step`: local SGD on a batch of the stream "private"; `correct` changes the gradient."""

    def step(carry: Tree, batch: Batches, ctx: Context) -> tuple[Tree, Logs]:
        gradient, buffers, logs = task.gradient(carry["params"], carry["buffers"], batch["private"])
        gradient = gradient if correct is None else correct(gradient, carry)
        return local.descend(carry, gradient, buffers, ctx), logs

    return step


def delta(broadcast: Tree, carry: Tree) -> Tree:
    """Return the update w - w_i, from the broadcast w and the carry's w_i: parameters and float buffers.

    Integer buffers, such as a count of batches, are not averaged and do not travel.
    """
    before = {"params": broadcast["params"], "buffers": tree.floats(broadcast["buffers"])}
    return tree.map(lambda w, w_i: w - w_i, before, {"params": carry["params"], "buffers": carry["buffers"]})


def apply_delta(weights: Tree, params: Tree, buffers: Tree) -> Tree:
    """Return new server weights: `params`, and the float buffers minus the averaged difference `buffers`."""
    after = {name: b - buffers[name] if name in buffers else b for name, b in weights["buffers"].items()}
    return {"params": params, "buffers": after}
