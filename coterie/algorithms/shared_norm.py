"""Tasks whose BatchNorm layers normalise by statistics that they are given, and rounds that only measure."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import replace

from torch import Tensor

from coterie.algorithms import statistics
from coterie.algorithms.local import LocalSGD
from coterie.core.aggregators import Aggregator, Sum
from coterie.core.algorithm import Algorithm, Batches, Context, Logs, RoundInfo
from coterie.core.errors import Mistake
from coterie.core.task import SharedNorm, Task, masked_sums
from coterie.core.tree import Tree
from coterie.models.functional import statistics_of


def shared(task: Task, how: SharedNorm) -> Task:
    """The task, its BatchNorm layers normalising by given statistics in training too.

    Raises:
        Mistake: the model has no BatchNorm layer, or one that keeps no statistics to be given.
    """
    if task.unshared_norms:
        raise Mistake(
            f"model: the BatchNorm layer {task.unshared_norms[0] or 'itself'} cannot be given running statistics; "
            "make it a torch.nn.BatchNorm layer with track_running_stats = True"
        )
    if not task.batch_norms or task.shared is None:
        still = any(name.endswith("running_mean") for name in task.frozen)
        what = "its BatchNorm layers are all frozen" if still else "it has no BatchNorm layer"
        raise Mistake(f"model: {what}, whose statistics this algorithm is about; choose fedavg")
    return replace(task, apply=task.shared(how))


def frozen(task: Task) -> Task:
    """The task, its BatchNorm layers normalising by given statistics that nothing changes.

    Raises:
        Mistake: as `shared`.
    """
    given = shared(task, SharedNorm())

    def apply(params: Tree, buffers: Tree, x: Tensor, mask: Tensor | None, key: Tensor) -> tuple[Tensor, Tree]:
        outputs, after = given.apply(params, buffers, x, mask, key)
        kept = {name for layer in task.batch_norms for name in statistics_of(layer)}
        return outputs, {name: buffers[name] if name in kept else b for name, b in after.items()}

    return replace(given, apply=apply)


def measuring(training: Algorithm, task: Task, local: LocalSGD) -> Algorithm:
    """FBN's rounds that set (M, V) to what the pooled batch is like, and train nothing; `training` gives the rest."""

    def look(carry: Tree, batch: Batches) -> tuple[Tree, Logs]:
        private = batch["private"]
        outputs, after = task.apply(carry["params"], carry["buffers"], private.x, private.mask, private.key)
        loss, count = masked_sums(task.loss, outputs, private.y, private.mask)
        buffers, seen, logs = statistics.observed(carry, after, {"loss": loss, "count": count}, task.batch_norms)
        return {**carry, "buffers": buffers, "seen": seen}, logs

    def finish(sent: Tree, carry: Tree, ctx: Context) -> tuple[Tree, Tree]:
        return {"statistics": carry["seen"]}, local.client_state(carry)

    def adopt(state: Tree, aggregate: Tree, info: RoundInfo) -> Tree:
        return {**state, "buffers": statistics.moved(state["buffers"], aggregate["statistics"], 1.0)}

    return replace(
        training,
        client=replace(
            training.client,
            step=look,
            finish=finish,
        ),
        server=replace(
            training.server,
            update=adopt,
            weighting={"statistics": "processed"},
        ),
    )


def short_of(warm_start: int, rounds: int) -> list[str]:
    """A sentence where so many rounds end before the measuring ones do."""
    if warm_start < rounds:
        return []
    return [f"algorithm.warm_start = {warm_start} with rounds = {rounds}: every round measures and none trains"]


AVERAGED: Mapping[str, Callable[[Aggregator], Aggregator]] = {"delta": lambda chosen: Sum()}
"""Parameters by the mean, whatever the user chose."""


def steps_of(local: LocalSGD, info: RoundInfo) -> float:
    """K: the local steps of a round, as the mean over clients where it follows from how many examples they have."""
    if local.local_steps is not None:
        return local.local_steps
    if local.batch_size == "full":
        return local.local_epochs
    return max(info.weighting["processed"] / (info.reached * local.batch_size), local.local_epochs)
