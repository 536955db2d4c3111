"""FedH2L, reconstructed: clients with models of their own teach one another through posteriors on a small seed set.

    client i  w_i, of any architecture, is kept between rounds and never sent
              K_i times, on a private batch b and a batch s of the seed set:
                  l <- grad CE(f_i(b), y)
                  g <- grad [CE(f_i(s), y) + lambda mean_{j != i} T^2 KL(p_j(s) || softmax(f_i(s) / T))]
                  l, g <- `conflict`(l, g)
                  w_i <- w_i - lr l - mutual_lr g
              p_i <- softmax(f_i / T) on the whole seed set [S, C], which is sent
    server    P <- sum_j p_j, n <- their number           over the clients that the round reached

That is order = "joint". With "successive" the last line is two steps: w_i <- w_i - lr l; then g, and l again on another
private batch, both at the new weights; then w_i <- w_i - mutual_lr g. See `coterie.algorithms.conflict` for the
rules of `conflict`, and `coterie.algorithms.posteriors` for the ways to exchange posteriors: as P and n, or n tables.
The log "conflict" is the share of examples in whose step l and g were in conflict.

With peer_weights = "accuracy" the mean over peers is weighted: sum_j v_j KL_j / max(sum_j v_j, 0.1), where v_j, from 0
to 1, is how far the accuracy of p_j on the seed set's labels lies above 1/C; see `posteriors.weigh_by_accuracy`.

Under a guarantee for clients P is the bounded and noised mean, times n. A client learns from that mean as it is, with
its own share in it: subtracting its own table from it might leave no probabilities.

A RECONSTRUCTION. Certain are: models of any architecture, mutual distillation, and posteriors on a shared seed set as
the only message. The paper's equations, weights, order of steps and treatment of conflicts were not at hand. The above
is the most defensible reading that we found, and each of its choices is an argument. These choices are ours too: peers'
posteriors are those of the round before, BatchNorm's statistics follow private and seed batches alike, and both
gradients share one momentum.

Li, Zhou, Wang, Mi, Hospedales: FedH2L: Federated Learning with Model and Statistical Heterogeneity, arXiv 2101.11296.
"""

from __future__ import annotations

from functools import partial
from typing import Literal, Unpack

import torch
from torch import Tensor

from coterie.algorithms import posteriors
from coterie.algorithms.conflict import Conflict, check_conflict, resolve_conflict
from coterie.algorithms.local import LocalSGD
from coterie.algorithms.local_limits import require_constant_rate, require_one_batch_steps, require_scalable_steps
from coterie.algorithms.local_options import LocalOptions
from coterie.core import tree
from coterie.core.algorithm import (
    Algorithm,
    Batches,
    ClientHalf,
    Context,
    Federation,
    Logs,
    Recipe,
    ServerHalf,
    Stream,
    Traits,
)
from coterie.core.errors import require
from coterie.core.kind_checks import refuse_wrong_types
from coterie.core.kinds import Count, NonNegative, Positive
from coterie.core.task import Batch, Task, masked_sums, mean_of_sums
from coterie.core.tree import Tree
from coterie.objectives.distillation import soften

ALONE = 'tables that stand alone are protected by no sum; choose exchange = "sum", or fedmd'


@refuse_wrong_types
def fedh2l(
    *,
    mutual_weight: NonNegative = 1.0,
    seed_weight: NonNegative = 1.0,
    temperature: Positive = 1.0,
    conflict: Conflict = "project_global",
    order: Literal["joint", "successive"] = "joint",
    mutual_steps: Count | None = None,
    mutual_lr: Positive | None = None,
    mutual_batch_size: Count | Literal["full"] | None = None,
    exchange: Literal["sum", "tables"] = "sum",
    peer_weights: posteriors.PeerWeights = "equal",
    send_as: posteriors.SendAs = "float32",
    **local_options: Unpack[LocalOptions],
) -> Recipe:
    """Return FedH2L-style mutual learning, a reconstruction: clients learn from one another's posteriors on a seed set.

    It needs a seed set, labelled or not.

    Args:
        mutual_weight: lambda, the weight of the KL from the peers.
        seed_weight: the weight of the loss on the seed set's labels, if it has any.
        temperature: T, which softens all posteriors.
        conflict: the rule for steps in which the two gradients conflict; see `coterie.algorithms.conflict`.
        order: "joint", one step along both gradients, or "successive", a step for each.
        mutual_steps: mutual steps in a round, spread evenly over the local steps; one with each unless given.
        mutual_lr: the learning rate of mutual steps, which decays as `lr` does; `lr` unless given. It is for sgd.
        mutual_batch_size: seed examples per mutual step; `batch_size` unless given.
        exchange: whether a client gets its peers' posteriors as one "sum" or as "tables", one per peer.
        peer_weights: whether all peers count alike, "equal", or by how far their "accuracy" on the seed set's labels
            lies above that of guessing, which leaves a peer that is sure of wrong answers without a say. That needs
            exchange = "tables", since a sum hides who said what.
        send_as: the type of number in which posteriors are sent up.
        **local_options: see `LocalOptions`. The optimiser's state is always kept between rounds.

    Raises:
        Mistake: a value is out of its range, or `conflict` needs both gradients at the same weights.
    """
    local, peers, rule = LocalSGD(**local_options), posteriors.exchange(exchange), check_conflict(conflict)
    codec = posteriors.table_codec(send_as)
    for name, value in (("mutual_weight", mutual_weight), ("seed_weight", seed_weight)):
        require(name, value, 0 <= value < float("inf"), "0 or more")
    require("temperature", temperature, 0 < temperature < float("inf"), "a number above 0")
    steps, size, whole = mutual_steps, mutual_batch_size, "a whole number, 1 or more"
    require("mutual_steps", steps, steps is None or (isinstance(steps, int) and steps >= 1), whole)
    right = size in (None, "full") or (isinstance(size, int) and size >= 1)
    require("mutual_batch_size", size, right, f'{whole}, or "full"')
    require("mutual_lr", mutual_lr, mutual_lr is None or 0 < mutual_lr < float("inf"), "a number above 0")
    require("order", order, order in ("joint", "successive"), '"joint" or "successive"')
    possible = order == "joint" or rule in ("project_global", "none")
    require("conflict", conflict, possible, '"project_global" or "none" where order = "successive"')
    require("peer_weights", peer_weights, peer_weights in ("equal", "accuracy"), '"equal" or "accuracy"')
    by_accuracy = peer_weights == "accuracy"
    seen = not by_accuracy or exchange == "tables"
    require("peer_weights", peer_weights, seen, '"equal" where exchange = "sum", which hides who said what')
    require_scalable_steps(local, "mutual_lr", mutual_lr)
    for refuse in (require_constant_rate, require_one_batch_steps):
        refuse(local, "with fedh2l, whose mutual steps use the same optimiser")
    ratio = 1.0 if mutual_lr is None else mutual_lr / local.options["lr"]
    own_size = local.options["batch_size"]
    streams = {"private": local.stream(), "seed": Stream(mutual_batch_size or own_size, source="seed_set")}
    if order == "successive" and rule != "none":
        streams["reference"] = Stream(own_size)

    def bind(task: Task) -> Algorithm:
        scored = not by_accuracy or "accuracy" in task.metrics
        require("peer_weights", peer_weights, scored, '"equal" where no accuracy is measured')

        def start(broadcast: Tree, client_state: Tree, ctx: Context) -> Tree:
            """Return the carry of the client's own model, with the peers' tables that its steps learn from."""
            own = soften(posteriors.seed_set_outputs(task, client_state, ctx), temperature)  # its last table
            count = {} if mutual_steps is None else {"step": torch.zeros_like(ctx.steps)}
            weigh = posteriors.weigh_by_accuracy(task, ctx) if by_accuracy else posteriors.weigh_equally
            teachers = peers.teachers(broadcast, own, client_state["round"], weigh)
            return {**local.initial_carry(client_state, client_state), **teachers, **count}

        def shared_gradient(carry: Tree, buffers: Tree, batch: Batch) -> tuple[Tree, Tree]:
            """Return the gradient g on a batch of the seed set, and the buffers after it."""

            def objective(params: Tree) -> tuple[Tensor, Tree]:
                outputs, after = task.apply(params, buffers, batch.x, batch.mask, batch.key)
                loss = mutual_weight * posteriors.disagreement(outputs, batch, carry, temperature)
                if batch.y is not None:
                    total, number = masked_sums(task.loss, outputs, batch.y, batch.mask)
                    loss = loss + seed_weight * mean_of_sums(total, number)
                return loss, after

            gradient, after = task.differentiate(objective, carry["params"])
            return tree.scale(gradient, ratio), after

        def joint(carry: Tree, batches: Batches, ctx: Context) -> tuple[Tree, Logs]:
            """Take one step along both gradients, or along the own one alone if no mutual step is due."""
            own, buffers, logs = task.gradient(carry["params"], carry["buffers"], batches["private"])
            shared, after = shared_gradient(carry, buffers, batches["seed"])
            logs = {**logs, "conflict": (tree.dot(own, shared) < 0) * logs["count"]}
            both = local.descend(carry, tree.add(*resolve_conflict(rule, own, shared)), after, ctx)
            return (
                both if mutual_steps is None else spread(both, local.descend(carry, own, buffers, ctx), ctx.steps)
            ), logs

        def successive(carry: Tree, batches: Batches, ctx: Context) -> tuple[Tree, Logs]:
            """Take a step along the own gradient and, if a mutual step is due, one along the shared gradient."""
            own, buffers, logs = task.gradient(carry["params"], carry["buffers"], batches["private"])
            carry = local.descend(carry, own, buffers, ctx)
            shared, after = shared_gradient(carry, buffers, batches["seed"])
            if "reference" in batches:
                again, _, _ = task.gradient(carry["params"], carry["buffers"], batches["reference"])
                logs = {**logs, "conflict": (tree.dot(again, shared) < 0) * logs["count"]}
                _, shared = resolve_conflict(rule, again, shared)
            both = local.descend(carry, shared, after, ctx)
            return (both if mutual_steps is None else spread(both, carry, ctx.steps)), logs

        def spread(due: Tree, otherwise: Tree, total: Tensor) -> Tree:
            """Return the carry `due` in `mutual_steps` of the `total` steps, evenly spread, otherwise `otherwise`."""
            k = otherwise["step"]
            now = torch.floor((k + 1) * mutual_steps / total) > torch.floor(k * mutual_steps / total)
            return {**tree.map(lambda a, b: torch.where(now, a, b), due, otherwise), "step": k + 1}

        def finish(broadcast: Tree, carry: Tree, ctx: Context) -> tuple[Tree, Tree]:
            """Return the model's posteriors on the seed set as the update, and the model as the client state."""
            table = soften(posteriors.seed_set_outputs(task, carry, ctx), temperature)
            return {"posteriors": table}, posteriors.client_state(carry, ctx)

        def initial_server_state(weights: Tree | None, federation: Federation) -> Tree:
            """Return the server state before the first round, when nobody has said anything."""
            if by_accuracy:
                posteriors.require_labels(federation)
            return peers.initial_state()

        return Algorithm(
            client=ClientHalf(
                start=start,
                step=joint if order == "joint" else successive,
                finish=finish,
                streams=streams,
                lr=local.lr,
                initial_state=partial(posteriors.initial_client_state, local),
            ),
            server=ServerHalf(
                update=lambda server_state, aggregate, info: peers.update(aggregate["posteriors"], info),
                weighting={"posteriors": "one"},
                initial_state=initial_server_state,
                broadcast=lambda server_state: server_state,
                evaluated_weights=posteriors.evaluated_weights,
                checks={"posteriors": posteriors.table_problem},
                aggregation={"posteriors": peers.aggregation},
                private={"posteriors": posteriors.PRIVATE_POSTERIORS} if exchange == "sum" else ALONE,
            ),
            traits=Traits(own_models=True, lossy=(), needs_classes=True),
            codec=codec,
        )

    return bind
