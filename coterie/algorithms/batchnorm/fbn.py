"""Federated batch normalisation: BatchNorm that trains on unlike clients as it would on their pooled batch.

    server  w, and (M, V) of every BatchNorm layer
    client  y = (x - M) / sqrt(V + eps) in every such layer, (M, V) constant: no example touches another's gradient
            w_i <- w - lr grad l(w; b)                                       # one step, or K_i
            mu_i, s_i, N_i <- mean and biased variance of x in every layer, and the number of values
    server  w <- w - server_lr mean(w - w_i)                                 # or another server optimiser
            mu, s <- mean and unbiased variance of the union of all x        # see `statistics`
            M <- (1 - b) M + b mu,   V <- (1 - b) V + b s

Both means are weighted by the examples processed, so that one step on n clients' batches is the same step on one
client's batch of all their examples, however unlike the clients are: weights, M and V agree to rounding. Training and
evaluation normalise alike. With a robust aggregator it is robust FBN: that rule then pools the statistics in three
stages.

Departures from the authors' code, since the paper's own pseudocode was not at hand:
- N counts values, not examples, in both places of the variance; theirs mixes the two. Clients send mu_i and s_i; theirs
  send M and V moved by them (`sends` = "moved"), which gives the same result where all clients are honest.
- Several local steps are ours: (M, V) stay constant within the round, clients pool the statistics of their steps, and
  b = 1 - (1 - statistics_momentum)^K for K steps, so that statistics move as fast as K rounds of one step would move
  them.
- gradient = "renorm" and "pooled" are ours: the same values with the gradient of BatchNorm on the client's batch or,
  by averages over the last rounds, on the pooled one (see `gradients`). With "renorm" the identity with one large batch
  holds for M and V, not for w. With "pooled" it holds for all three, and two more numbers per channel travel each way
  (see `slopes`).
- V is kept positive. `server_clip_norm`, the measuring rounds of `warm_start` and `centre` are ours, and so is the
  variant "recommended", which consists of them (see `variants`): the paper's rule does not train deep networks. A
  measuring round trains nothing. With "own", one of them sets (M, V) to pooled statistics that each client took while
  it normalised by its own batch. `centre` takes each filter's mean out of the averaged difference (Yong, Huang, Hua,
  Zhang: Gradient Centralization, ECCV 2020), in the kernels of convolutions between which and a BatchNorm layer nothing
  stands, except those that take the model's input. It is linear, so many clients still are one client.
  Only the round with "own" depends on how examples are dealt.

Guerraoui, Pinot, Rizk, Stephan, Taiani: Overcoming the Challenges of Batch Normalization in Federated Learning, arXiv
2405.14670; the algorithm as in the authors' library (LPD-EPFL/byzfl, revision fca4279).
"""

from __future__ import annotations

import sys
from collections.abc import Mapping
from dataclasses import replace
from typing import Any, Literal, Unpack

from torch import Tensor

from coterie.algorithms.batchnorm import gradients, statistics
from coterie.algorithms.batchnorm.centring import take_out_means
from coterie.algorithms.batchnorm.measuring_round import measuring_round
from coterie.algorithms.batchnorm.private_statistics import PRIVATE_STATISTICS
from coterie.algorithms.batchnorm.slopes import (
    add_slopes,
    initial_slopes,
    move_slopes,
    slopes_as_parameters,
    slopes_part,
)
from coterie.algorithms.batchnorm.tasks import with_normaliser
from coterie.algorithms.batchnorm.variants import complete_variant
from coterie.algorithms.local import LocalSGD, apply_delta, delta
from coterie.algorithms.local_limits import require_constant_rate, require_one_batch_steps
from coterie.algorithms.local_options import LocalOptions
from coterie.algorithms.optimizers import Optimizer, clip_to_norm, muon, sgd
from coterie.core import tree
from coterie.core.aggregators import Sum
from coterie.core.algorithm import (
    DIFFERENCE,
    Algorithm,
    Batches,
    ClientHalf,
    Context,
    Federation,
    Logs,
    PrivatePart,
    Recipe,
    RoundInfo,
    ServerHalf,
    Traits,
    one_architecture,
)
from coterie.core.errors import Mistake, require
from coterie.core.kind_checks import refuse_wrong_types
from coterie.core.kinds import FractionBelowOne, NonNegative, NonNegativeInt, Positive, PositiveFraction
from coterie.core.normaliser import Normaliser
from coterie.core.options import completes_options
from coterie.core.task import Task
from coterie.core.toml_text import toml_text
from coterie.core.tree import Tree


@completes_options(complete_variant)
@refuse_wrong_types
def fbn(
    *,
    variant: Literal["recommended", "paper"] | None = None,
    gradient: Literal["constant", "renorm", "pooled"] | None = None,
    statistics_momentum: PositiveFraction | None = None,
    warm_start: NonNegativeInt | Literal["own"] | None = None,
    centre: bool | None = None,
    max_r: float | None = None,
    max_d: NonNegative | None = None,
    robust: Literal["all", "statistics"] = "all",
    sends: Literal["batch", "moved"] = "batch",
    server: Literal["sgd", "muon"] | None = None,
    server_lr: Positive = 1.0,
    kernel_step: Positive = 0.03,
    server_momentum: FractionBelowOne | None = None,
    server_clip_norm: Positive | Literal["none"] | None = None,
    **local_options: Unpack[LocalOptions],
) -> Recipe:
    """Return federated batch normalisation: BatchNorm by shared statistics (M, V), wherever it is in a model.

    It is for BatchNorm1d, 2d and 3d. The paper takes one step per round, `local_steps` = 1.

    Args:
        variant: the defaults of the options below that say so: "recommended" trains deep networks, "paper" is the
            paper's rule. "paper" is meant where `gradient`, `statistics_momentum` or `warm_start` is given, and
            "recommended" where none is.
        gradient: that of normalising by constants, "constant" in both variants, or one of BatchNorm's own; see above.
        statistics_momentum: the share of the new in (M, V) at each local step; the layers' own momentum is not used.
            What "pooled" averages moves with it. 0.3 where recommended, 0.1 in the paper.
        warm_start: "own", one measuring round in which clients normalise by their own batches, where recommended; or a
            number of measuring rounds, 0 in the paper. In the paper's variant each sets (M, V) to the statistics of the
            round's batches. In the other the first is "own", and the others move (M, V) by `statistics_momentum`.
        centre: whether the server takes each filter's mean out of the averaged difference; true where recommended. A
            model whose graph cannot be read is not centred, and a warning says so.
        max_r, max_d: bounds of the renormalised gradient; see `gradients.renorm_gradient`.
        robust: whether a robust aggregator is for all that is sent, or for the statistics alone, with parameters
            averaged.
        sends: how clients report their batches: as mu_i and s_i, or as (M, V) moved towards them, as the authors' code
            does. "moved" needs `local_steps`. The two differ only where clients attack: a forgery counts in full with
            "moved", and with the weight b with "batch".
        server: the server's optimiser; see `coterie.algorithms.optimizers`. "muon" where recommended, "sgd" in the
            paper.
        server_lr: the share of the averaged difference that the server applies.
        kernel_step: with "muon", the length of the first round's step of a kernel, as a share of the kernel's norm. It
            shrinks by `lr_decay`, and follows a schedule over rounds.
        server_momentum: momentum of the server's steps, which lasts over rounds; `keep_momentum` does that at clients.
            0.9 where recommended, 0 in the paper.
        server_clip_norm: the largest norm of a round's averaged difference, in lr times local steps, or "none". With
            one step it cuts the gradient on the pooled batch, where `clip_norm` cuts each client's own. 1 where
            recommended, "none" in the paper.
        **local_options: how clients train; see `LocalOptions`. `server_clip_norm` measures in steps of SGD, so other
            optimisers and a schedule over steps need "none".

    Raises:
        Mistake: a value is out of its range; when bound to a model, that it has no BatchNorm layer with running
            statistics, or one that cannot be given any.
    """
    chosen = complete_variant(
        {
            "variant": variant,
            "gradient": gradient,
            "statistics_momentum": statistics_momentum,
            "warm_start": warm_start,
            "centre": centre,
            "server": server,
            "server_momentum": server_momentum,
            "server_clip_norm": server_clip_norm,
        }
    )
    gradient, statistics_momentum = chosen["gradient"], chosen["statistics_momentum"]
    local = LocalSGD(**local_options)
    require("server", chosen["server"], chosen["server"] in ("sgd", "muon"), '"sgd" or "muon"')
    require("kernel_step", kernel_step, 0 < kernel_step < float("inf"), "a number above 0")
    allowed = '"constant", "renorm" or "pooled"'
    require("gradient", gradient, gradient in ("constant", "renorm", "pooled"), allowed)
    require("statistics_momentum", statistics_momentum, 0 < statistics_momentum <= 1, "above 0 and at most 1")
    warm, own = _measuring_rounds(chosen["warm_start"], chosen["variant"])
    require("centre", chosen["centre"], isinstance(chosen["centre"], bool), "true or false")
    require("max_r", max_r, max_r is None or (gradient == "renorm" and max_r >= 1), '1 or more, with gradient "renorm"')
    require("max_d", max_d, max_d is None or (gradient == "renorm" and max_d >= 0), '0 or more, with gradient "renorm"')
    clip = None if chosen["server_clip_norm"] == "none" else chosen["server_clip_norm"]
    require("server_clip_norm", clip, clip is None or 0 < clip < float("inf"), 'a number above 0, or "none"')
    optimizer_name = local.options["optimizer"]
    measured = f'"none" with optimizer = "{optimizer_name}", since it measures a difference in steps of sgd'
    require("server_clip_norm", clip, clip is None or optimizer_name == "sgd", measured)
    if clip is not None:
        require_constant_rate(local, 'with fbn, unless server_clip_norm = "none"')
    require_one_batch_steps(local, "with fbn, whose server counts a step for each batch; raise `batch_size` instead")
    sendable = sends == "batch" or (sends == "moved" and local.options["local_steps"] is not None)
    require("sends", sends, sendable, '"batch", or, with local_steps, "moved"')
    require("robust", robust, robust in ("all", "statistics"), '"all" or "statistics"')

    is_one_step = local.options["local_steps"] == 1 or (
        local.options["local_steps"] is None
        and local.options["local_epochs"] == 1
        and local.options["batch_size"] == "full"
    )  # as far as the options say

    def optimizer(round: int) -> Optimizer:
        """Return the server's optimiser of a round; a kernel's step shrinks as the clients' learning rate does."""
        if chosen["server"] == "sgd":
            return sgd(server_lr, chosen["server_momentum"])
        step = kernel_step * local.lr_factor(round)
        return muon(server_lr, chosen["server_momentum"], max(step, sys.float_info.min))  # a schedule may end at 0

    first_optimizer = optimizer(1)  # made here, so that its options are refused at once
    normalisers: dict[str, Normaliser] = {
        "constant": gradients.constant_gradient,
        "renorm": gradients.renorm_gradient(max_r, max_d),
        "pooled": gradients.pooled_gradient,
    }

    def share(steps: float) -> float:
        """Return b, the share of the new statistics in (M, V) after this number of local steps."""
        return float(1 - (1 - statistics_momentum) ** steps)  # b

    def bind(task: Task) -> Algorithm:
        plain, layers = task, task.batch_norms
        task = with_normaliser(plain, normalisers[gradient])
        kernels, unread = _kernels_to_centre(plain, chosen["centre"])
        floor = statistics.noise_floor(task)

        def initial_server_state(weights: Tree | None, federation: Federation) -> Tree:
            weights = one_architecture(weights)
            slopes = initial_slopes(weights["buffers"], layers) if gradient == "pooled" else {}
            return {**weights, "server": first_optimizer.init(weights["params"]), **slopes}

        def broadcast(state: Tree) -> Tree:
            """Return the parameters, the other buffers, and as "statistics" (M, V) and the slopes, if there are any."""
            other = statistics.other_buffers(state["buffers"], layers)
            running = statistics.running_statistics(state["buffers"], layers)  # (M, V)
            return {"params": state["params"], "buffers": other, "statistics": {**running, **slopes_part(state)}}

        def start(sent: Tree, state: Tree, ctx: Context) -> Tree:
            """Return the carry of the server's model with (M, V) in its buffers, and no statistics seen so far."""
            buffers = statistics.fill(sent["buffers"], sent["statistics"])
            carry = local.initial_carry({"params": sent["params"], "buffers": buffers}, state)
            seen = statistics.initial_statistics(sent["statistics"])
            return {**carry, "seen": seen, **slopes_part(sent["statistics"])}

        def step(carry: Tree, batch: Batches, ctx: Context) -> tuple[Tree, Logs]:
            """Take a step, and add its batch's statistics and slopes to those seen in the round."""
            params = {**carry["params"], **slopes_as_parameters(carry)}
            grads, after, logs = task.gradient(params, carry["buffers"], batch["private"])
            buffers, seen, logs = statistics.observe(carry, after, logs, layers)
            own = {name: grads[name] for name in carry["params"]}
            return {**local.descend(carry, own, buffers, ctx), "seen": {**seen, **add_slopes(seen, grads)}}, logs

        def finish(sent: Tree, carry: Tree, ctx: Context) -> tuple[Tree, Tree]:
            """Return w - w_i and the round's statistics as the update, and the optimiser's state if it is kept."""
            seen = carry["seen"] | tree.scale(slopes_part(carry["seen"]), 1 / ctx.steps)
            if sends == "moved":
                running = {name: sent["statistics"][name] for name in ("mean", "var")}
                seen = statistics.encode_as_moved(seen, running, share(local.options["local_steps"] or 1))
            return {"delta": delta(sent, carry), "statistics": seen}, local.client_state(carry)

        def update(state: Tree, aggregate: Tree, info: RoundInfo) -> Tree:
            """Move w by the averaged difference, and (M, V) and the slopes towards the pooled ones by b."""
            mean, steps = aggregate["delta"], _mean_steps(local, info)  # of w - w_i
            change = take_out_means(mean["params"], kernels)
            if clip is not None:
                change = clip_to_norm(change, clip * local.lr(info.round) * steps)
            params, kept = optimizer(info.round).apply(state["params"], change, state["server"])
            after = apply_delta(state, params, mean["buffers"])
            b, pooled = share(steps), aggregate["statistics"]
            if sends == "moved":
                pooled = statistics.decode_moved(pooled, statistics.running_statistics(state["buffers"], layers), b)
            buffers = statistics.move(after["buffers"], pooled, b, floor)
            return {"params": params, "buffers": buffers, "server": kept, **move_slopes(state, pooled, b)}

        def drift(before: Tree, after: Tree) -> Mapping[str, Tensor]:
            """Return how far a round moved each layer's (M, V)."""
            old, new = (statistics.running_statistics(state["buffers"], layers) for state in (before, after))
            return {f"drift.{layer}": d for layer, d in statistics.layer_distances(new, old).items()}

        def warnings(rounds: int) -> list[str]:
            """Return warnings: of a round of several steps, if nothing is centred, and if every round only measures."""
            found = [] if unread is None else [f"{unread}, so gradients are not centred (algorithm.centre = false)"]
            if not is_one_step:
                found.append(
                    "fbn normalises by statistics as old as the round, so with several steps in it a small network "
                    "learns less and a deep one may learn nothing; give algorithm.local_steps = 1 and more rounds"
                )
            if warm < rounds:
                return found
            measures = f"algorithm.warm_start = {toml_text(chosen['warm_start'])} with rounds = {rounds}"
            return [f"{measures}: every round measures and none trains", *found]

        protection: Mapping[str, PrivatePart] | str = {"delta": DIFFERENCE, "statistics": PRIVATE_STATISTICS}
        if local.options["local_steps"] is None:
            protection = "how many steps fbn's clients take must not depend on their data; give algorithm.local_steps"
        elif sends == "moved":
            protection = 'fbn bounds the statistics of batches as they are; set algorithm.sends = "batch"'
        average_parameters = {"delta": lambda chosen: Sum()} if robust == "statistics" else {}
        training = Algorithm(
            client=ClientHalf(
                start=start,
                step=step,
                finish=finish,
                streams={"private": local.stream()},
                lr=local.lr,
                initial_state=local.initial_client_state,
            ),
            server=ServerHalf(
                update=update,
                weighting={"delta": "processed", "statistics": "processed"},
                initial_state=initial_server_state,
                broadcast=broadcast,
                aggregation={"statistics": statistics.three_stages, **average_parameters},
                measures=drift,
                private=protection,
            ),
            traits=Traits(given_statistics=gradient == "constant" and not (own and warm)),
            warnings=warnings,
        )
        first = measuring_round(training, with_normaliser(plain, gradients.own_batch) if own else task)
        later = measuring_round(training, task, lambda info: share(_mean_steps(local, info))) if own else first

        def stage(round: int) -> Algorithm:
            """Return the algorithm of a round: one that measures, or the one that trains."""
            return first if round <= min(warm, 1) else later if round <= warm else training

        return replace(training, stage=stage)

    return bind


def _measuring_rounds(warm_start: Any, variant: str) -> tuple[int, bool]:
    """Return how many rounds measure, and whether clients normalise by their own batches in the first of them."""
    if warm_start == "own":
        return 1, True
    is_number = isinstance(warm_start, int) and not isinstance(warm_start, bool)
    require("warm_start", warm_start, is_number and warm_start >= 0, '0 or more, or "own"')
    return warm_start, variant == "recommended"


def _kernels_to_centre(task: Task, centre: bool) -> tuple[frozenset[str], str | None]:
    """Return the kernels whose filters are centred, and why there are none although they should be, or None."""
    try:
        kernels = task.kernels_before_norms() if centre else ()
    except Mistake as mistake:
        return frozenset(), mistake.sentence
    return frozenset(task.tied.get(name, name) for name in kernels), None


def _mean_steps(local: LocalSGD, info: RoundInfo) -> float:
    """Return K, the local steps of a round: the mean over clients where it depends on their numbers of examples."""
    if local.options["local_steps"] is not None:
        return local.options["local_steps"]
    size, epochs = local.options["batch_size"], local.options["local_epochs"]
    return epochs if size == "full" else max(info.weighting["processed"] / (info.reached * size), epochs)
