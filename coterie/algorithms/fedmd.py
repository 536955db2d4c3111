"""FedMD: clients with models of their own average their scores of public examples, and each learns this consensus.

    transfer      every client k: train f_k on the public set's labels, then on its private data
    communicate   scores f_k(x) on the public set, which are sent
    aggregate     server: f(x) <- mean_k f_k(x)
    digest        every client: train f_k to approach the consensus f on the public set
    revisit       every client: train f_k on its private data, then communicate again

The seed set is the public set. `start` digests, `step` revisits, `finish` communicates. The first round is the transfer
phase, since there is no consensus before it.

With match = "logits", as in the authors' code, scores are logits and the loss of the digest is the mean absolute error.
With "posteriors", scores are softmax(f_k / T) and the loss is T^2 KL.

Departures from the paper: the transfer phase is one round, of `transfer_epochs` and the round's private steps, rather
than training until it converges. The whole public set is used in every round, not a fresh subset of it. Training is
by Adam only with optimizer = "adam". A client that first takes part in a later round has missed the transfer phase:
instead of its first digest it trains on the public set's labels.

Li, Wang: FedMD: Heterogenous Federated Learning via Model Distillation, 2019 (arXiv 1910.03581), Algorithm 1; the loss
of the digest is that of the authors' code.
"""

from __future__ import annotations

from functools import partial
from typing import Literal, Unpack

import torch
from torch import Tensor

from coterie.algorithms import posteriors
from coterie.algorithms.local import LocalSGD, local_step
from coterie.algorithms.local_limits import require_constant_rate, require_one_batch_steps, require_scalable_steps
from coterie.algorithms.local_options import LocalOptions
from coterie.core import rng
from coterie.core.algorithm import DIFFERENCE, Algorithm, ClientHalf, Context, Recipe, ServerHalf, Traits
from coterie.core.errors import require
from coterie.core.kind_checks import refuse_wrong_types
from coterie.core.kinds import Count, NonNegativeInt, Positive
from coterie.core.task import Batch, Score, Task, masked_sums, mean_of_sums
from coterie.core.tree import Tree
from coterie.objectives.distillation import absolute_difference, distillation, soften


@refuse_wrong_types
def fedmd(
    *,
    digest_epochs: Count = 1,
    transfer_epochs: NonNegativeInt = 1,
    digest_batch_size: Count | None = None,
    digest_lr: Positive | None = None,
    match: Literal["logits", "posteriors"] = "logits",
    send_as: posteriors.SendAs = "float32",
    temperature: Positive = 1.0,
    **local_options: Unpack[LocalOptions],
) -> Recipe:
    """Return FedMD: clients average their scores of the seed set, and each trains towards this consensus.

    It needs a seed set that every client holds; if that has no labels, there is no transfer phase.

    Args:
        digest_epochs: passes over the seed set in a round.
        transfer_epochs: passes over the seed set, with its labels, in the transfer phase.
        digest_batch_size: seed examples per step; 32 unless given.
        digest_lr: the learning rate on the seed set, which decays with `lr`; `lr` unless given. It is for sgd.
        match: which scores are averaged: "logits" or "posteriors".
        send_as: the type of number in which scores are sent up; "uint8" only with posteriors.
        temperature: T, used with posteriors only.
        **local_options: how clients train on private data; see `LocalOptions`. The optimiser's state is always kept
            between rounds.

    Raises:
        Mistake: a value is out of its range.
    """
    local = LocalSGD(**local_options)
    require("digest_epochs", digest_epochs, digest_epochs >= 1, "1 or more")
    require("transfer_epochs", transfer_epochs, transfer_epochs >= 0, "0 or more")
    require("digest_batch_size", digest_batch_size, digest_batch_size is None or digest_batch_size >= 1, "1 or more")
    require("digest_lr", digest_lr, digest_lr is None or 0 < digest_lr < float("inf"), "a number above 0")
    require("match", match, match in ("logits", "posteriors"), '"logits" or "posteriors"')
    require("temperature", temperature, 0 < temperature < float("inf"), "a number above 0")
    require_scalable_steps(local, "digest_lr", digest_lr)
    for refuse in (require_constant_rate, require_one_batch_steps):
        refuse(local, "with fedmd, whose steps on the seed set use the same optimiser")
    codec = posteriors.table_codec(send_as, probabilities=match == "posteriors")
    ratio, size = (1.0 if digest_lr is None else digest_lr / local.options["lr"]), digest_batch_size or 32
    digest_score: Score = absolute_difference if match == "logits" else partial(distillation, temperature=temperature)

    def bind(task: Task) -> Algorithm:
        def start(broadcast: Tree, client_state: Tree, ctx: Context) -> Tree:
            """Return the carry after training on the seed set: towards the consensus, or first on its labels."""
            carry, consensus = local.initial_carry(client_state, client_state), broadcast["consensus"]
            digests = consensus.numel() > 0  # otherwise this is the transfer phase
            late = client_state["round"] < 0
            for batch in seed_batches(ctx, digest_epochs if digests else transfer_epochs):
                if batch.y is None and not digests:
                    break  # no labels, no transfer
                carry = digest(carry, batch, consensus[batch.rows] if digests else None, late, ctx)
            return carry

        def seed_batches(ctx: Context, epochs: int) -> list[Batch]:
            """Return the batches of some passes over the seed set, each pass in a new order."""
            assert ctx.seed_set is not None
            x, y = ctx.seed_set.x, ctx.seed_set.y
            batches = []
            for epoch in range(epochs):
                key = rng.fold(ctx.key, epoch)
                order = rng.uniform(key, [len(x)]).argsort()
                for k, rows in enumerate(torch.split(order, size)):
                    batches.append(Batch(x[rows], None if y is None else y[rows], rows, None, rng.fold(key, k)))
            return batches

        def digest(carry: Tree, batch: Batch, target: Tensor | None, late: Tensor, ctx: Context) -> Tree:
            """Take a step towards the consensus, or the labels if the client missed the transfer phase (`late`)."""

            def objective(params: Tree) -> tuple[Tensor, Tree]:
                outputs, buffers = task.apply(params, carry["buffers"], batch.x, None, batch.key)
                loss = None if batch.y is None else _mean_score(task.loss, outputs, batch.y)
                if target is not None:
                    distance = _mean_score(digest_score, outputs, target)
                    loss = distance if loss is None else torch.where(late, loss, distance)
                assert loss is not None
                return ratio * loss, buffers

            gradient, buffers = task.differentiate(objective, carry["params"])
            return local.descend(carry, gradient, buffers, ctx)

        def finish(broadcast: Tree, carry: Tree, ctx: Context) -> tuple[Tree, Tree]:
            """Return the model's scores of the seed set as the update, and the model as the client state."""
            outputs = posteriors.seed_set_outputs(task, carry, ctx)
            scores = outputs if match == "logits" else soften(outputs, temperature)
            return {"scores": scores}, posteriors.client_state(carry, ctx)

        return Algorithm(
            client=ClientHalf(
                start=start,
                step=local_step(task, local),
                finish=finish,
                streams={"private": local.stream()},
                lr=local.lr,
                initial_state=partial(posteriors.initial_client_state, local),
            ),
            server=ServerHalf(
                update=lambda server_state, aggregate, info: {"consensus": aggregate["scores"]},
                weighting={"scores": "one"},
                initial_state=lambda weights, federation: {"consensus": posteriors.empty_table()},
                broadcast=lambda server_state: server_state,
                evaluated_weights=posteriors.evaluated_weights,
                checks={} if match == "logits" else {"scores": posteriors.table_problem},
                private={"scores": DIFFERENCE if match == "logits" else posteriors.PRIVATE_POSTERIORS},
            ),
            traits=Traits(own_models=True, reads_seed_set=True, lossy=(), needs_classes=True),
            codec=codec,
        )

    return bind


def _mean_score(score: Score, outputs: Tensor, y: Tensor) -> Tensor:
    """Return the mean of a score over the examples of a batch []."""
    total, count = masked_sums(score, outputs, y, None)
    return mean_of_sums(total, count)
