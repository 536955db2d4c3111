"""Hybrid batch normalisation: BatchNorm by a mix of shared and batch statistics, which each client learns to weigh.

    client  mu = (1 - a) M + a mu_B,  s = (1 - a) V + a s_B,  a = sigmoid(phi), in every channel that is normalised
            y = (x - mu) / sqrt(s + eps); mu_B and s_B, mean and biased variance of the batch, have a gradient
            w_i, phi_i <- SGD on l(w, phi; b), K_i steps, from w and the client's own phi
    server  w <- w - server_lr mean(w - w_i)                                      # or another server optimiser
    client  mu, s and N of one batch under the new w                              # an exchange of its own
    server  mu, s <- mean and unbiased variance of all of these                   # see `statistics`
            M <- (1 - b) M + b mu,   V <- (1 - b) V + b s, which clients are sent; mu and s themselves are evaluated

phi, a number for each channel and 0 at first, never leaves the client. A round of the paper has two exchanges, so it is
two of our rounds: an odd round trains, and the even round after it measures. So end with an even round; what is
evaluated after an odd one has the statistics of the model before. `lr_decay` counts both.

Departures from the authors' code, since the paper was not at hand:
- Theirs measures for (M, V) at the round's start, and again at its end to evaluate; ours measures at the end alone,
  with a cohort of its own. So (M, V) are a round ahead of theirs.
- Theirs measures the first 64 examples, ours a random batch. N counts values; theirs counts examples.
- Theirs sends phi, and its average is not used. A channel with one value is normalised by (M, V) alone.

Departures from the authors' figure: sigmoid(phi) is the share of the batch's statistics here, as in their code. In the
figure it is the share of the shared statistics, and the batch's get 1 - sigmoid(phi) = sigmoid(-phi). That is the same
method with -phi for phi: the same class of functions, both shares 1/2 at the start, and a gradient by phi of the
opposite sign. SGD, also with momentum, weight decay and clipping, moves phi by the same amount in the opposite
direction. So shares and weights are the same after every step, up to rounding; only the sign of the phi that a client
keeps differs.

Chen, Xu, Wu, Kittler: Hybrid Batch Normalisation: Resolving the Dilemma of Batch Normalisation in Federated Learning,
ICML 2025, arXiv 2505.21877; the algorithm as in the authors' code (Hongyao-Chen/HybridBN, revision bd0d71f).
"""

from __future__ import annotations

from dataclasses import replace
from typing import Unpack

import torch
from torch import Tensor

from coterie.algorithms.batchnorm import statistics
from coterie.algorithms.batchnorm.measuring_round import measuring_round
from coterie.algorithms.batchnorm.private_statistics import PRIVATE_STATISTICS
from coterie.algorithms.batchnorm.tasks import with_normaliser
from coterie.algorithms.fedavg import fedavg
from coterie.algorithms.local_options import LocalOptions
from coterie.algorithms.optimizers import Optimizer
from coterie.core.algorithm import DIFFERENCE, Algorithm, Batches, Context, Federation, Logs, Recipe, RoundInfo, Stream
from coterie.core.errors import require
from coterie.core.kind_checks import refuse_wrong_types
from coterie.core.kinds import Count, Fraction, Positive
from coterie.core.normaliser import LayerInput, Moments, leaf_name, normalise, statistic_names
from coterie.core.task import Task
from coterie.core.tree import Tree


def mix(layer: LayerInput) -> tuple[Tensor, Moments]:
    """Normalise by (M, V) mixed with the batch's statistics, whose share is sigmoid(phi); report the mixture."""
    mean, var, number = layer.batch
    share = torch.sigmoid(layer.extra["phi"]) * (number > 1)  # a single value has no variance
    mean, var = torch.lerp(layer.running_mean, mean, share), torch.lerp(layer.running_var, var, share)
    return normalise(layer.x, mean, var, layer.eps), Moments(mean, var, number)


@refuse_wrong_types
def hbn(
    *,
    statistics_batch: Count = 64,
    statistics_momentum: Fraction = 0.002,
    server_lr: Positive = 1.0,
    server: Optimizer | None = None,
    **local_options: Unpack[LocalOptions],
) -> Recipe:
    """Return HBN: FedAvg whose BatchNorm layers mix shared and batch statistics; every even round only measures.

    It is for BatchNorm1d, 2d and 3d, wherever they are in a model.

    Args:
        statistics_batch: the number of examples that a client measures.
        statistics_momentum: b, the share of the new in the (M, V) that clients mix with their batches' own.
        server_lr, server: as in `fedavg`.
        **local_options: how clients train, phi included; see `LocalOptions`.

    Raises:
        Mistake: a value is out of its range; when bound to a model, that it has no BatchNorm layer with running
            statistics, or one that cannot be given any.
    """
    size, share = statistics_batch, statistics_momentum
    require("statistics_batch", size, isinstance(size, int) and size >= 1, "1 or more")
    require("statistics_momentum", share, 0 <= share <= 1, "from 0 to 1")
    average = fedavg(server_lr=server_lr, server=server, **local_options)

    def bind(task: Task) -> Algorithm:
        task, layers = with_normaliser(task, mix), task.batch_norms
        means = {leaf_name(layer, "phi"): statistic_names(layer)[0] for layer in layers}  # of the shape of phi
        base = average(task)

        def initial_server_state(weights: Tree | None, federation: Federation) -> Tree:
            """Return FedAvg's initial state, with the (M, V) that clients are sent as "mixed"."""
            state = base.server.initial_state(weights, federation)
            return {**state, "mixed": statistics.running_statistics(state["buffers"], layers)}  # (M, V)

        def initial_client_state(weights: Tree) -> Tree:
            """Return phi, 0 in every channel, and the optimiser's state if it is kept."""
            phi = {name: torch.zeros_like(weights["buffers"][mean]) for name, mean in means.items()}
            return {"phi": phi, **base.client.initial_state({"params": {**weights["params"], **phi}})}

        def broadcast(state: Tree) -> Tree:
            """Return the parameters, the other buffers, and (M, V) as "statistics"."""
            other = statistics.other_buffers(state["buffers"], layers)
            return {"params": state["params"], "buffers": other, "statistics": state["mixed"]}

        def start(sent: Tree, state: Tree, ctx: Context) -> Tree:
            """Return the carry of the server's model with (M, V) in its buffers and the client's own phi."""
            params, buffers = {**sent["params"], **state["phi"]}, statistics.fill(sent["buffers"], sent["statistics"])
            return base.client.start({"params": params, "buffers": buffers}, state, ctx)

        def step(carry: Tree, batch: Batches, ctx: Context) -> tuple[Tree, Logs]:
            """Take FedAvg's step, and put (M, V) back into the buffers."""
            after, logs = base.client.step(carry, batch, ctx)  # its buffers hold what the layers reported
            running = statistics.running_statistics(carry["buffers"], layers)
            return {**after, "buffers": statistics.fill(after["buffers"], running)}, logs

        def finish(sent: Tree, carry: Tree, ctx: Context) -> tuple[Tree, Tree]:
            """Return FedAvg's update, without phi, and a client state that keeps phi."""
            update, state = base.client.finish(sent, carry, ctx)
            return update, {"phi": {name: carry["params"][name] for name in means}, **state}

        def update(state: Tree, aggregate: Tree, info: RoundInfo) -> Tree:
            """Return FedAvg's new state; the (M, V) that clients are sent stay."""
            return {**base.server.update(state, aggregate, info), "mixed": state["mixed"]}

        def start_measuring(sent: Tree, state: Tree, ctx: Context) -> Tree:
            """Return the carry of a measuring round, with no statistics seen so far."""
            return {**start(sent, state, ctx), "seen": statistics.initial_statistics(sent["statistics"])}

        def adopt_statistics(state: Tree, aggregate: Tree, info: RoundInfo) -> Tree:
            """Move the (M, V) that clients are sent towards the pooled statistics, and evaluate by these themselves."""
            old, pooled = statistics.fill(state["buffers"], state["mixed"]), aggregate["statistics"]
            mixed = statistics.running_statistics(statistics.move(old, pooled, share), layers)
            return {**state, "mixed": mixed, "buffers": statistics.move(state["buffers"], pooled, 1.0)}

        training = replace(
            base,
            client=replace(base.client, start=start, step=step, finish=finish, initial_state=initial_client_state),
            server=replace(
                base.server,
                update=update,
                initial_state=initial_server_state,
                broadcast=broadcast,
                aggregation={"statistics": statistics.three_stages},
                private={"delta": DIFFERENCE, "statistics": PRIVATE_STATISTICS},
            ),
        )
        measuring = measuring_round(training, task)
        one_batch = {"private": Stream(size, steps=1)}
        measuring = replace(
            measuring,
            client=replace(measuring.client, start=start_measuring, streams=one_batch),
            server=replace(measuring.server, update=adopt_statistics),
        )
        return replace(training, stage=lambda round: training if round % 2 else measuring)

    return bind
