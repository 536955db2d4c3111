"""Federated batch normalisation: BatchNorm that trains on unlike clients as it would on their pooled batch.

    server  w, and (M, V) of every BatchNorm layer
    client  y = (x - M) / sqrt(V + eps) in every such layer, (M, V) constant: no example touches another's gradient
            w_i <- w - lr grad l(w; b)                                       # one step, or K_i
            mu_i, s_i, N_i <- mean and biased variance of x in every layer, and how many values
    server  w <- w - server_lr mean(w - w_i)                                 # or another server optimiser
            mu, s <- mean and unbiased variance of the union of all x        # `coterie.algorithms.statistics`
            M <- (1 - b) M + b mu,   V <- (1 - b) V + b s

Both means are weighted by the examples processed, so that one step on n clients' batches is the same step on one
client's batch of them all, whatever the clients hold: weights, M and V agree to rounding. Training and evaluation
normalise alike. With a robust aggregator it is robust FBN: the statistics are then pooled by that rule in three stages.

Departures from the paper, or rather from its authors' code, since the paper's own pseudocode was not at hand:
- N counts values, not examples, in both places of the variance; theirs mixes the two. Clients send mu_i and s_i; theirs
  send M and V moved by them (`sends` = "moved"), which comes to the same where nobody lies.
- Several local steps are ours: (M, V) stay frozen within the round, clients pool what their steps saw, and b = 1 -
  (1 - statistics_momentum)^K for K steps, so that statistics move as fast as K rounds of one step would move them.
- gradient = "renorm" and "pooled" are ours: the same values with the gradient of BatchNorm on the client's batch or,
  by averages over the last rounds, on the pooled one (see `coterie.core.task.SharedNorm`). With "renorm" the identity
  with one large batch holds for M and V, not for w. With "pooled" it holds, and two more numbers per channel travel
  each way (see `coterie.algorithms.slopes`).
- V is kept positive. `warm_start` begins with rounds that only measure, each with b = 1. `server_clip_norm` is ours.

Guerraoui, Pinot, Rizk, Stephan, Taiani: Overcoming the Challenges of Batch Normalization in Federated Learning, arXiv
2405.14670; the algorithm as in the authors' library (LPD-EPFL/byzfl, revision fca4279).
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Literal, Unpack

from torch import Tensor

from coterie.algorithms import slopes, statistics
from coterie.algorithms.local import LocalOptions, LocalSGD, apply_delta, clip_to_norm, delta
from coterie.algorithms.server import sgd
from coterie.algorithms.shared_norm import AVERAGED, measuring, shared, short_of, steps_of
from coterie.core import tree
from coterie.core.algorithm import (
    Algorithm,
    Batches,
    ClientHalf,
    Context,
    Federation,
    Logs,
    Recipe,
    RoundInfo,
    ServerHalf,
    one_architecture,
)
from coterie.core.errors import require
from coterie.core.task import SharedNorm, Task
from coterie.core.tree import Tree


def fbn(
    *,
    gradient: Literal["constant", "renorm", "pooled"] = "constant",
    statistics_momentum: float = 0.1,
    warm_start: int = 0,
    max_r: float | None = None,
    max_d: float | None = None,
    robust: Literal["all", "statistics"] = "all",
    sends: Literal["batch", "moved"] = "batch",
    server_lr: float = 1.0,
    server_momentum: float = 0.0,
    server_clip_norm: float | None = None,
    **local_options: Unpack[LocalOptions],
) -> Recipe:
    """Federated batch normalisation, for BatchNorm1d, 2d and 3d wherever they are in a model.

    The paper takes one step per round, `local_steps` = 1.

    Args:
        gradient: that of normalising by constants, the paper's, or one of BatchNorm's own; see above.
        statistics_momentum: the share of the new in (M, V) at each local step; the layers' own momentum is not used.
            What "pooled" averages moves with it.
        warm_start: rounds at the beginning that set (M, V) to what their batches are like, and train nothing. One makes
            the first layer's statistics right; as many as there are layers make all of them right.
        max_r, max_d: bounds of the renormalised gradient; see `coterie.core.task.SharedNorm`.
        robust: whether a robust aggregator is for all that is sent, or for the statistics alone, with parameters
            averaged.
        sends: what clients say of their batches: mu_i and s_i, or (M, V) moved towards them, as the authors' code does.
            It needs `local_steps`. Only attackers can tell the difference: what they forge counts in full with
            "moved", and with the weight b with "batch".
        server_lr: the share of the averaged difference that the server applies.
        server_momentum: momentum of the server's steps, which lasts over rounds; `keep_momentum` does that at clients.
        server_clip_norm: the largest norm of a round's averaged difference, in lr times local steps. With one step it
            cuts the gradient on the pooled batch, where `clip_norm` cuts each client's own.
        **local_options: how clients train; see `LocalSGD`.

    Raises:
        Mistake: a value is out of its range; when bound to a model, that it has no BatchNorm layer with running
            statistics, or one that cannot be given any.
    """
    local, optimizer = LocalSGD(**local_options), sgd(server_lr, server_momentum)
    allowed = '"constant", "renorm" or "pooled"'
    require("gradient", gradient, gradient in ("constant", "renorm", "pooled"), allowed)
    require("statistics_momentum", statistics_momentum, 0 < statistics_momentum <= 1, "above 0 and at most 1")
    require("warm_start", warm_start, isinstance(warm_start, int) and warm_start >= 0, "0 or more")
    require("max_r", max_r, max_r is None or (gradient == "renorm" and max_r >= 1), '1 or more, with gradient "renorm"')
    require("max_d", max_d, max_d is None or (gradient == "renorm" and max_d >= 0), '0 or more, with gradient "renorm"')
    cut = server_clip_norm
    require("server_clip_norm", cut, cut is None or 0 < cut < float("inf"), "a number above 0")
    known = sends == "batch" or (sends == "moved" and local.local_steps is not None)
    require("sends", sends, known, '"batch", or, with local_steps, "moved"')
    require("robust", robust, robust in ("all", "statistics"), '"all" or "statistics"')

    def share(steps: float) -> float:
        return float(1 - (1 - statistics_momentum) ** steps)  # b

    def bind(task: Task) -> Algorithm:
        task, layers = shared(task, SharedNorm(gradient, max_r, max_d)), task.batch_norms

        def initial_server_state(weights: Tree | None, federation: Federation) -> Tree:
            weights = one_architecture(weights)
            kept = slopes.none_yet(weights["buffers"], layers) if gradient == "pooled" else {}
            return {**weights, "server": optimizer.init(weights["params"]), **kept}

        def broadcast(state: Tree) -> Tree:
            rest = statistics.others(state["buffers"], layers)
            given = statistics.given(state["buffers"], layers)  # (M, V)
            return {"params": state["params"], "buffers": rest, "statistics": {**given, **slopes.part(state)}}

        def start(sent: Tree, state: Tree, ctx: Context) -> Tree:
            buffers = statistics.filled(sent["buffers"], sent["statistics"])
            carry = local.initial_carry({"params": sent["params"], "buffers": buffers}, state, ctx)
            return {**carry, "seen": statistics.nothing_yet(sent["statistics"]), **slopes.part(sent["statistics"])}

        def step(carry: Tree, batch: Batches) -> tuple[Tree, Logs]:
            params = {**carry["params"], **slopes.given(carry)}
            grads, after, logs = task.gradient(params, carry["buffers"], batch["private"])
            buffers, seen, logs = statistics.observed(carry, after, logs, layers)
            own = {name: grads[name] for name in carry["params"]}
            return {**local.descend(carry, own, buffers), "seen": {**seen, **slopes.added(seen, grads)}}, logs

        def finish(sent: Tree, carry: Tree, ctx: Context) -> tuple[Tree, Tree]:
            seen = carry["seen"] | tree.scale(slopes.part(carry["seen"]), 1 / ctx.steps)
            if sends == "moved":
                given = {name: sent["statistics"][name] for name in ("mean", "var")}
                seen = statistics.as_moved(seen, given, share(local.local_steps or 1))
            return {"delta": delta(sent, carry), "statistics": seen}, local.client_state(carry)

        def update(state: Tree, aggregate: Tree, info: RoundInfo) -> Tree:
            mean, steps = aggregate["delta"], steps_of(local, info)  # of w - w_i
            step = mean["params"] if cut is None else clip_to_norm(mean["params"], cut * local.rate(info.round) * steps)
            params, kept = optimizer.apply(state["params"], step, state["server"])
            after = apply_delta(state, params, mean["buffers"])
            b, pooled = share(steps), aggregate["statistics"]
            if sends == "moved":
                pooled = statistics.unmoved(pooled, statistics.given(state["buffers"], layers), b)
            buffers = statistics.moved(after["buffers"], pooled, b)
            return {"params": params, "buffers": buffers, "server": kept, **slopes.moved(state, pooled, b)}

        def drift(before: Tree, after: Tree) -> Mapping[str, Tensor]:
            old, new = (statistics.given(state["buffers"], layers) for state in (before, after))
            return {f"drift.{layer}": d for layer, d in statistics.distance(new, old).items()}

        training = Algorithm(
            client=ClientHalf(
                start=start,
                step=step,
                finish=finish,
                streams={"private": local.stream()},
                lr=local.rate,
                initial_state=local.initial_client_state,
            ),
            server=ServerHalf(
                update=update,
                weighting={"delta": "processed", "statistics": "processed"},
                initial_state=initial_server_state,
                broadcast=broadcast,
                aggregation={"statistics": statistics.pooling, **(AVERAGED if robust == "statistics" else {})},
                measures=drift,
            ),
            warnings=lambda rounds: short_of(warm_start, rounds),
        )
        first = measuring(training, task, local)
        return replace(
            training,
            stage=lambda round: first if round <= warm_start else training,
        )

    return bind
