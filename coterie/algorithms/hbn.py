"""Hybrid batch normalisation: BatchNorm by a mix of shared and batch statistics, which each client learns to weigh.

    client  mu = (1 - a) M + a mu_B,  s = (1 - a) V + a s_B,  a = sigmoid(phi), in every channel that is normalised
            y = (x - mu) / sqrt(s + eps); mu_B and s_B, mean and biased variance of the batch, have a gradient
            w_i, phi_i <- SGD on l(w, phi; b), K_i steps, from w and the client's own phi
    server  w <- w - server_lr mean(w - w_i)                                      # or another server optimiser
    client  mu, s and N of one batch under the new w                              # an exchange of its own
    server  mu, s <- mean and unbiased variance of all of these                   # `coterie.algorithms.statistics`
            M <- (1 - b) M + b mu,   V <- (1 - b) V + b s, which clients are sent; mu and s themselves are evaluated

phi, a number for each channel and 0 at first, never leaves the client. A round of the paper has two exchanges, and is
two of ours: an odd one trains, and the even one after it measures. So end with an even round; what is evaluated after
an odd one has the statistics of the model before. `lr_decay` counts both.

Departures from the authors' code, since the paper was not at hand:
- Theirs measures what moves (M, V) at the round's start and again, to evaluate, at its end; ours does at the end alone,
  with a cohort of its own. So (M, V) are a round ahead of theirs.
- Theirs measures the first 64 examples, ours a random batch. N counts values; theirs examples.
- Theirs sends phi, whose average nobody uses. Where a channel has one value it is normalised by (M, V) alone.

Chen, Xu, Wu, Kittler: Hybrid Batch Normalisation: Resolving the Dilemma of Batch Normalisation in Federated Learning,
ICML 2025, arXiv 2505.21877; the algorithm as in the authors' code (Hongyao-Chen/HybridBN, revision bd0d71f).
"""

from __future__ import annotations

from dataclasses import replace
from typing import Unpack

import torch

from coterie.algorithms import statistics
from coterie.algorithms.fedavg import fedavg
from coterie.algorithms.local import LocalOptions, LocalSGD, delta
from coterie.algorithms.server import ServerOptimizer
from coterie.algorithms.shared_norm import measuring, shared
from coterie.core.algorithm import Algorithm, Batches, Context, Federation, Logs, Recipe, RoundInfo, Stream
from coterie.core.errors import require
from coterie.core.task import SharedNorm, Task
from coterie.core.tree import Tree
from coterie.models.functional import statistics_of


def hbn(
    *,
    statistics_batch: int = 64,
    statistics_momentum: float = 0.002,
    server_lr: float = 1.0,
    server: ServerOptimizer | None = None,
    **local_options: Unpack[LocalOptions],
) -> Recipe:
    """HBN, for BatchNorm1d, 2d and 3d wherever they are in a model.

    Args:
        statistics_batch: how many examples a client measures.
        statistics_momentum: b, the share of the new in the (M, V) that clients mix with their batches' own.
        server_lr, server: as in `fedavg`.
        **local_options: how clients train, phi included; see `LocalSGD`.

    Raises:
        Mistake: a value is out of its range; when bound to a model, that it has no BatchNorm layer with running
            statistics, or one that cannot be given any.
    """
    size, share = statistics_batch, statistics_momentum
    require("statistics_batch", size, isinstance(size, int) and size >= 1, "1 or more")
    require("statistics_momentum", share, 0 <= share <= 1, "from 0 to 1")
    local = LocalSGD(**local_options)
    average = fedavg(server_lr=server_lr, server=server, **local_options)

    def bind(task: Task) -> Algorithm:
        task, layers = shared(task, SharedNorm("hybrid")), task.batch_norms
        factors = {f"{layer}.phi" if layer else "phi": statistics_of(layer)[0] for layer in layers}
        base = average(task)

        def initial_server_state(weights: Tree | None, federation: Federation) -> Tree:
            state = base.server.initial_state(weights, federation)
            return {**state, "mixed": statistics.given(state["buffers"], layers)}  # (M, V)

        def initial_client_state(weights: Tree) -> Tree:
            phi = {name: torch.zeros_like(weights["buffers"][mean]) for name, mean in factors.items()}
            return {"phi": phi, **local.initial_client_state({"params": {**weights["params"], **phi}})}

        def broadcast(state: Tree) -> Tree:
            rest = statistics.others(state["buffers"], layers)
            return {"params": state["params"], "buffers": rest, "statistics": state["mixed"]}

        def start(sent: Tree, state: Tree, ctx: Context) -> Tree:
            params, buffers = {**sent["params"], **state["phi"]}, statistics.filled(sent["buffers"], sent["statistics"])
            return local.initial_carry({"params": params, "buffers": buffers}, state, ctx)

        def step(carry: Tree, batch: Batches) -> tuple[Tree, Logs]:
            grads, after, logs = task.gradient(carry["params"], carry["buffers"], batch["private"])
            buffers = statistics.filled(after, statistics.given(carry["buffers"], layers))
            return local.descend(carry, grads, buffers), logs

        def kept(carry: Tree) -> Tree:
            return {"phi": {name: carry["params"][name] for name in factors}, **local.client_state(carry)}

        def finish(sent: Tree, carry: Tree, ctx: Context) -> tuple[Tree, Tree]:
            return {"delta": delta(sent, carry)}, kept(carry)

        def update(state: Tree, aggregate: Tree, info: RoundInfo) -> Tree:
            return {**base.server.update(state, aggregate, info), "mixed": state["mixed"]}

        def begin(sent: Tree, state: Tree, ctx: Context) -> Tree:
            return {**start(sent, state, ctx), "seen": statistics.nothing_yet(sent["statistics"])}

        def measured(sent: Tree, carry: Tree, ctx: Context) -> tuple[Tree, Tree]:
            return {"statistics": carry["seen"]}, kept(carry)

        def adopt(state: Tree, aggregate: Tree, info: RoundInfo) -> Tree:
            old, pooled = statistics.filled(state["buffers"], state["mixed"]), aggregate["statistics"]
            mixed = statistics.given(statistics.moved(old, pooled, share), layers)
            return {**state, "mixed": mixed, "buffers": statistics.moved(state["buffers"], pooled, 1.0)}

        training = replace(
            base,
            client=replace(
                base.client,
                start=start,
                step=step,
                finish=finish,
                initial_state=initial_client_state,
            ),
            server=replace(
                base.server,
                update=update,
                initial_state=initial_server_state,
                broadcast=broadcast,
                aggregation={"statistics": statistics.pooling},
            ),
        )
        looking = replace(
            measuring(training, task, local),
            client=replace(
                measuring(training, task, local).client,
                start=begin,
                finish=measured,
                streams={"private": Stream(size, steps=1)},
            ),
            server=replace(
                measuring(training, task, local).server,
                update=adopt,
            ),
        )
        return replace(
            training,
            stage=lambda round: training if round % 2 else looking,
        )

    return bind
