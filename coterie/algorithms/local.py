"""What most algorithms share: local training by stochastic gradients, and the difference that it made."""

from __future__ import annotations

from collections.abc import Callable
from typing import Unpack, cast

import torch
from torch import Tensor

from coterie.algorithms.local_optimizers import local_optimizer
from coterie.algorithms.local_options import LocalOptions
from coterie.algorithms.optimizers import zero_of
from coterie.algorithms.schedules import factor_of_round, factor_of_step
from coterie.core import tree
from coterie.core.algorithm import Batches, Context, Logs, Stream
from coterie.core.errors import Mistake, require
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
        factor_of_round: round -> the schedule's factor on its learning rate; None where there is none over rounds.
        factor_of_step: the factor on the learning rate within a round; None where it is the same in all of a round.
        keeps_optimizer: whether a client keeps the optimiser's state for its next round.

    Raises:
        Mistake: an option is unknown, missing, out of its range, or not one of the chosen optimiser's.
    """

    def __init__(self, **options: Unpack[LocalOptions]) -> None:
        self.options = cast(LocalOptions, complete_options(LocalOptions, options))
        self.optimizer = local_optimizer(self.options)
        self.keeps_optimizer = _keeps_optimizer(self.options)
        self.factor_of_round = factor_of_round(self.options)
        self.factor_of_step = factor_of_step(self.options)
        self._counts = self.factor_of_step is not None or self.options["accumulate"] > 1

    def lr(self, round: int) -> float:
        """Return the learning rate of a round, counted from 1."""
        rate = self.options["lr"] * self.options["lr_decay"] ** (round - 1)
        return rate if self.factor_of_round is None else rate * self.factor_of_round(round)

    def lr_factor(self, round: int) -> float:
        """Return the factor on the learning rate of a round, counted from 1."""
        decay = self.options["lr_decay"] ** (round - 1)
        return decay if self.factor_of_round is None else decay * self.factor_of_round(round)

    def optimizer_steps(self, steps: Tensor) -> Tensor:
        """Return how many steps the optimiser takes [], for this number of local steps []."""
        n = self.options["accumulate"]
        return steps if n == 1 else torch.ceil(steps / n)

    def stream(self) -> Stream:
        """Return the stream of the client's own data, cut into batches as the options say."""
        return Stream(self.options["batch_size"], self.options["local_epochs"], self.options["local_steps"])

    def initial_carry(self, weights: Tree, client_state: Tree) -> Tree:
        """Return the carry before the first step: weights, and the optimiser's state, kept or initial."""
        initial = self.optimizer.init(weights["params"])
        state = {name: client_state.get(name, part) for name, part in initial.items()}
        carry = {"params": weights["params"], "buffers": weights["buffers"], "optimizer": state}
        return {**carry, "progress": self._initial_progress(weights["params"])} if self._counts else carry

    def _initial_progress(self, params: Tree) -> Tree:
        """Return how far a round has come: its local steps so far, and the gradient that waits for a step."""
        if self.options["accumulate"] == 1:
            return {"step": zero_of(params)}
        return {"step": zero_of(params), "count": zero_of(params), "gradient": tree.zeros_like(params)}

    def descend(self, carry: Tree, gradient: Tree, buffers: Tree, ctx: Context, count: Tensor | None = None) -> Tree:
        """Return the carry after a step along the gradient, with the buffers that the forward gave.

        Args:
            carry: the client's.
            gradient: of the batch's mean loss.
            buffers: what the forward gave.
            ctx: the round's.
            count: what the batch's loss was divided by; needed where gradients accumulate.
        """
        if self._counts:
            return self._descend_by_progress({**carry, "buffers": buffers}, gradient, ctx, count)
        params, state = self.optimizer.apply(carry["params"], gradient, carry["optimizer"], ctx.lr)
        return {**carry, "params": params, "buffers": buffers, "optimizer": state}

    def _descend_by_progress(self, carry: Tree, gradient: Tree, ctx: Context, count: Tensor | None) -> Tree:
        """Return the carry after a step of a schedule within the round, or after a batch of several that make one."""
        progress, n = carry["progress"], self.options["accumulate"]
        k, lr = progress["step"], ctx.lr
        if self.factor_of_step is not None:
            done = torch.floor(k / n)  # the optimiser's steps so far
            lr = lr * self.factor_of_step(ctx.round, done, self.optimizer_steps(ctx.steps))
        if n == 1:
            params, state = self.optimizer.apply(carry["params"], gradient, carry["optimizer"], lr)
            return {**carry, "params": params, "optimizer": state, "progress": {"step": k + 1}}
        if count is None:
            raise Mistake(
                key="accumulate", value=n, allowed="1 with an algorithm whose steps give no count to `descend`"
            )
        total, number = tree.add(progress["gradient"], gradient, count), progress["count"] + count
        mean = tree.scale(total, 1 / torch.where(number > 0, number, 1.0))
        params, state = self.optimizer.apply(carry["params"], mean, carry["optimizer"], lr)
        due = (torch.remainder(k + 1, n) == 0) | (k + 1 >= ctx.steps)
        old = {"params": carry["params"], "optimizer": carry["optimizer"], "gradient": total, "count": number}
        new = {"params": params, "optimizer": state} | tree.zeros_like({"gradient": total, "count": number})
        now = tree.map(lambda a, b: torch.where(due, a, b), new, old)
        after = {"step": k + 1, "count": now["count"], "gradient": now["gradient"]}
        return {**carry, "params": now["params"], "optimizer": now["optimizer"], "progress": after}

    def client_state(self, carry: Tree) -> Tree:
        """Return what the client keeps for its next round: the optimiser's state, where it is kept, or nothing."""
        kept: Tree = carry["optimizer"] if self.keeps_optimizer else {}
        return kept

    def initial_client_state(self, weights: Tree) -> Tree:
        """Return what the client keeps before its first round: the optimiser's state, where it is kept, or {}."""
        return self.optimizer.init(weights["params"]) if self.keeps_optimizer else {}


def _keeps_optimizer(options: LocalOptions) -> bool:
    """Return whether the optimiser's state is kept between rounds."""
    momentum, everything = options["keep_momentum"], options["keep_optimizer"]
    sgd = options["optimizer"] == "sgd"
    require(
        "keep_momentum", momentum, sgd or not momentum, 'false unless optimizer = "sgd"; give keep_optimizer instead'
    )
    require("keep_optimizer", everything, not momentum or everything is not False, "left out with keep_momentum = true")
    return momentum if everything is None else everything


Correct = Callable[[Tree, Tree], Tree]
"""(gradient, carry) -> the gradient that is descended."""


def local_step(
    task: Task, local: LocalSGD, correct: Correct | None = None
) -> Callable[[Tree, Batches, Context], tuple[Tree, Logs]]:
    """Return an algorithm's `step`: local SGD on a batch of the stream "private"; `correct` changes the gradient."""

    def step(carry: Tree, batch: Batches, ctx: Context) -> tuple[Tree, Logs]:
        gradient, buffers, logs = task.gradient(carry["params"], carry["buffers"], batch["private"])
        gradient = gradient if correct is None else correct(gradient, carry)
        return local.descend(carry, gradient, buffers, ctx, logs["count"]), logs

    return step


MOVED = ":moved"
"""Behind a buffer's name, in an update: the share of clients at which an infinite entry became a number."""


def delta(broadcast: Tree, carry: Tree) -> Tree:
    """Return the update w - w_i, from the broadcast w and the carry's w_i: parameters and float buffers.

    Integer buffers, such as a count of batches, are not averaged and do not travel. Equal entries differ by 0, infinite
    ones too, such as those of a mask. A buffer may also begin at infinity and become a number, as the range that an
    observer has seen. Such an entry is sent itself, as 0 - w_i, with a further leaf that says so (`MOVED`).

    Raises:
        Mistake: a buffer changed its shape in training.
    """
    before = {"params": broadcast["params"], "buffers": tree.floats(broadcast["buffers"])}
    _require_same_shapes(before["buffers"], carry["buffers"])
    if _are_finite(before):
        return tree.map(lambda w, w_i: w - w_i, before, {"params": carry["params"], "buffers": carry["buffers"]})
    params = tree.map(_difference, before["params"], carry["params"])
    buffers: Tree = {}
    for name, w in before["buffers"].items():
        w_i = carry["buffers"][name]
        if _are_finite({name: w}):
            buffers[name] = w - w_i
        else:
            moved = w.isinf() & (w_i != w)
            buffers[name] = torch.where(moved, -w_i, _difference(w, w_i))
            buffers[name + MOVED] = moved.to(w.dtype)
    return {"params": params, "buffers": buffers}


def apply_delta(weights: Tree, params: Tree, buffers: Tree) -> Tree:
    """Return new server weights: `params`, and the float buffers minus the averaged difference `buffers`.

    An infinite entry becomes the mean over the clients at which it became a number; without such a client it stays.
    """
    after = {name: _buffer_after(name, b, buffers) if name in buffers else b for name, b in weights["buffers"].items()}
    return {"params": params, "buffers": after}


def _buffer_after(name: str, b: Tensor, mean: Tree) -> Tensor:
    """Return a buffer minus the averaged difference; see `apply_delta`."""
    after: Tensor = b - mean[name]
    if name + MOVED not in mean:
        return after
    share = mean[name + MOVED]
    return torch.where(b.isinf() & (share > 0), -mean[name] / share, after)


def anchor(params: Tree) -> Tree:
    """Return what a carry holds for `pull`: the server's parameters, and those among them with infinite entries."""
    return {"anchor": params, "infinite": {name: p for name, p in params.items() if not _are_finite({name: p})}}


def pull(carry: Tree) -> Tree:
    """Return w_i - w from the carry's parameters and its `anchor`. Equal entries differ by 0, infinite ones too."""
    w, infinite = carry["anchor"], carry["infinite"]
    return {
        name: _difference(w_i, w[name]) if name in infinite else w_i - w[name] for name, w_i in carry["params"].items()
    }


def _difference(a: Tensor, b: Tensor) -> Tensor:
    """Return a - b, and 0 where both are infinite and alike."""
    return torch.where(a == b, 0.0, a - b)


def _are_finite(weights: Tree) -> bool:
    """Return whether all leaves are finite; False where the values cannot be looked at, within `torch.func.vmap`.

    The broadcast is one for all clients, so its values can be looked at.
    """
    try:
        return tree.is_finite(weights)
    except RuntimeError:
        return False


def _require_same_shapes(before: Tree, after: Tree) -> None:
    """Refuse a buffer that changed its shape: what clients send could not be averaged."""
    for name, w in before.items():
        if after[name].shape != w.shape:
            raise Mistake(
                f"model: its buffer {name} has the shape {list(w.shape)} before training and "
                f"{list(after[name].shape)} after it; run the model on a batch before you give it, so that its "
                "buffers have their shapes, or choose layers whose buffers keep theirs"
            )
