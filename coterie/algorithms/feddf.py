"""FedDF: after averaging, the server trains its model towards the clients' mean prediction on unlabelled examples.

    server  each round t:  S_t <- clients at random                                                    # box line 2
    client    w_i <- trained from w on its own data, as in FedAvg                                      # 3 to 5
    server    w <- sum_i (n_i / n) w_i                                                                 # 6
              J times, on a batch b of the seed set:                                                   # 7 to 9
                w <- w - lr_j grad KL(softmax(mean_i f(b; w_i)) || softmax(f(b; w)))    by Adam; lr_j falls as a cosine

Labels of the seed set, if there are any, are not used.

Departures from the paper: a client scores the seed set itself and sends its logits [S, C] beside its weights, where
the paper's server runs every client's model. The mean is the same, except for the rounding that a codec applies to
weights. The server then needs sums only, which can be computed in any order and under encryption, but clients need the
seed set. J is an argument; the paper stops at a plateau on validation data. Adam is that of
`coterie.algorithms.optimizers`, with a new state in each round. BatchNorm's statistics, averaged like weights, follow
the batches that the server trains on. All clients have one architecture: docs/algorithms/feddf.md says why.

Lin, Kong, Stich, Jaggi: Ensemble Distillation for Robust Model Fusion in Federated Learning, NeurIPS 2020 (arXiv
2006.07242), Algorithm 1.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import replace
from typing import Unpack

import torch
from torch import Tensor

from coterie.algorithms import posteriors
from coterie.algorithms.fedavg import fedavg
from coterie.algorithms.local_options import LocalOptions
from coterie.algorithms.optimizers import adam
from coterie.core import rng
from coterie.core.algorithm import DIFFERENCE, Algorithm, Context, Recipe, RoundInfo
from coterie.core.errors import require
from coterie.core.kind_checks import refuse_wrong_types
from coterie.core.kinds import Count, NonNegativeInt, Positive
from coterie.core.task import Batch, Task, masked_sums
from coterie.core.tree import Tree
from coterie.objectives.distillation import distillation, soften

ADAM_EPSILON = 1e-8
"""It keeps Adam from dividing by 0."""


@refuse_wrong_types
def feddf(
    *,
    distill_steps: NonNegativeInt = 100,
    distill_lr: Positive = 1e-3,
    distill_batch_size: Count = 128,
    **local_options: Unpack[LocalOptions],
) -> Recipe:
    """Return FedDF: FedAvg whose server also trains towards the clients' mean prediction on the seed set.

    It is for one architecture. It needs a seed set that every client holds; its labels are not used.

    Args:
        distill_steps: J, the server's steps in a round.
        distill_lr: the learning rate of the first of them, which falls to 0 as half a cosine.
        distill_batch_size: seed examples per step; all of them if there are fewer.
        **local_options: how clients train; see `LocalOptions`.

    Raises:
        Mistake: a value is out of its range.
    """
    require("distill_steps", distill_steps, distill_steps >= 0, "0 or more")
    require("distill_lr", distill_lr, 0 < distill_lr < float("inf"), "a number above 0")
    require("distill_batch_size", distill_batch_size, distill_batch_size >= 1, "1 or more")
    average = fedavg(**local_options)

    def bind(task: Task) -> Algorithm:
        averaging = average(task)

        def finish(broadcast: Tree, carry: Tree, ctx: Context) -> tuple[Tree, Tree]:
            """Return FedAvg's update with the trained model's outputs on the seed set, and FedAvg's client state."""
            update, client_state = averaging.client.finish(broadcast, carry, ctx)
            return {**update, "scores": posteriors.seed_set_outputs(task, carry, ctx)}, client_state

        def update(server_state: Tree, aggregate: Tree, info: RoundInfo) -> Tree:
            """Average as FedAvg does, then train the average towards the clients' mean prediction."""
            state, teacher = averaging.server.update(server_state, aggregate, info), soften(aggregate["scores"])  # 6
            adam_state = adam(adaptivity=ADAM_EPSILON).init(state["params"])
            for j, batch in enumerate(seed_batches(info, distill_steps, distill_batch_size)):  # 7
                lr = distill_lr * (1 + math.cos(math.pi * j / distill_steps)) / 2
                state, adam_state = distill(state, adam_state, batch, teacher[batch.rows], lr)
            return state

        def distill(state: Tree, adam_state: Tree, batch: Batch, teacher: Tensor, lr: float) -> tuple[Tree, Tree]:
            """Return the server's and Adam's state after one step towards the teacher's posteriors [B, C]."""

            def objective(params: Tree) -> tuple[Tensor, Tree]:
                outputs, after = task.apply(params, state["buffers"], batch.x, None, batch.key)
                total, count = masked_sums(distillation, outputs, teacher, None)
                return total / count, after

            gradient, buffers = task.differentiate(objective, state["params"])
            params, adam_state = adam(lr, adaptivity=ADAM_EPSILON).apply(state["params"], gradient, adam_state)  # 8
            return {**state, "params": params, "buffers": buffers}, adam_state

        return replace(
            averaging,
            client=replace(
                averaging.client,
                finish=finish,
            ),
            server=replace(
                averaging.server,
                update=update,
                weighting={**averaging.server.weighting, "scores": "one"},
                private={"delta": DIFFERENCE, "scores": DIFFERENCE},  # logits of 0 are even posteriors
            ),
            traits=replace(
                averaging.traits,
                needs_classes=True,
                reads_seed_set=True,
            ),
        )

    return bind


def seed_batches(info: RoundInfo, steps: int, size: int) -> Iterator[Batch]:
    """Yield `steps` batches of the seed set, without labels, in successive passes over it, each in a new order."""
    assert info.seed_set is not None, "a federation without a seed set is refused earlier"
    assert info.key is not None, "the loop gives a key"
    x, key = info.seed_set.x, info.key
    size = min(size, len(x))
    passes = [rng.uniform(rng.fold(key, k), [len(x)]).argsort() for k in range(-(-steps * size // len(x)))]
    for k, rows in enumerate(torch.split(torch.cat(passes), size)[:steps] if passes else ()):
        yield Batch(x[rows], None, rows, None, rng.fold(key, k))
