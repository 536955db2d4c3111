"""Rounds that measure the statistics of BatchNorm layers and train nothing."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

from coterie.algorithms.batchnorm import statistics
from coterie.core.algorithm import Algorithm, Batches, Context, Logs, RoundInfo
from coterie.core.task import Task, masked_sums
from coterie.core.tree import Tree


def measuring_round(training: Algorithm, task: Task, share: Callable[[RoundInfo], float] | None = None) -> Algorithm:
    """Return the algorithm of a round that moves (M, V) to the statistics of the pooled batch.

    Args:
        training: gives everything else. Its `start` puts `initial_statistics` into the carry, as "seen".
        task: its BatchNorm layers call a normaliser.
        share: info -> b, the share of the new in (M, V); all of it unless given.
    """

    floor = statistics.noise_floor(task)

    def step(carry: Tree, batch: Batches, ctx: Context) -> tuple[Tree, Logs]:
        """Run the forward alone, and add its batch's statistics to those seen in the round."""
        private = batch["private"]
        if task.gradient_rule is not None:
            after, logs = task.gradient_rule.measure(task, carry["params"], carry["buffers"], private)
        else:
            outputs, after = task.apply(carry["params"], carry["buffers"], private.x, private.mask, private.key)
            loss, count = masked_sums(task.loss, outputs, private.y, private.mask)
            logs = {"loss": loss, "count": count}
        buffers, seen, logs = statistics.observe(carry, after, logs, task.batch_norms)
        return {**carry, "buffers": buffers, "seen": seen}, logs

    def finish(broadcast: Tree, carry: Tree, ctx: Context) -> tuple[Tree, Tree]:
        """Return the statistics alone as the update, and the client state that training gives."""
        return {"statistics": carry["seen"]}, training.client.finish(broadcast, carry, ctx)[1]

    def update(state: Tree, aggregate: Tree, info: RoundInfo) -> Tree:
        """Move (M, V) to the pooled statistics."""
        b = 1.0 if share is None else share(info)
        return {**state, "buffers": statistics.move(state["buffers"], aggregate["statistics"], b, floor)}

    return replace(
        training,
        client=replace(training.client, step=step, finish=finish),
        server=replace(training.server, update=update, weighting={"statistics": "processed"}),
    )
