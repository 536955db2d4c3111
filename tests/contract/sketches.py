"""Two algorithms that strain the contract, in as few lines as show that it holds. They are sketches for tests, not
features.
"""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional as F

from coterie.core import tree
from coterie.core.aggregators import Aggregator, Combine, Composite
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
    Stream,
    Traits,
)
from coterie.core.task import Batch, Task
from coterie.core.tree import Tree


def mutual(seed_size: int, classes: int, lr: float = 0.1) -> Recipe:
    """FedH2L in outline: models of any architecture, a second stream of data, posteriors on the seed set as the only
    message.

    The server keeps the sum of the last round's posteriors and their number; a client takes its own share away, which
    it knows from its state if it was part of that round.
    """

    def bind(task: Task) -> Algorithm:
        def initial_server_state(weights: Tree | None, federation: Federation) -> Tree:
            zero = torch.zeros((), dtype=torch.float64)
            return {"sum": torch.zeros(seed_size, classes, dtype=torch.float64), "count": zero, "round": zero}

        def initial_client_state(weights: Tree) -> Tree:
            return {
                **weights,
                "sent": torch.zeros(seed_size, classes, dtype=torch.float64),
                "round": torch.full((), -1.0, dtype=torch.float64),
            }

        def start(sent: Tree, state: Tree, ctx: Context) -> Tree:
            counted = (state["round"] == sent["round"]).to(torch.float64)
            others = sent["count"] - counted
            teacher = (sent["sum"] - counted * state["sent"]) / others.clamp(min=1)  # [S, C]
            trust = (others > 0).to(torch.float64)
            return {
                "params": state["params"],
                "buffers": state["buffers"],
                "teacher": teacher,
                "trust": trust,
            }

        def step(carry: Tree, batches: Batches, ctx: Context) -> tuple[Tree, Logs]:
            local, buffers, logs = task.gradient(carry["params"], carry["buffers"], batches["private"])
            seed = batches["seed"]

            def mutual_loss(params: Tree) -> tuple[Tensor, Tree]:
                outputs, _ = task.apply(params, buffers, seed.x, seed.mask, seed.key)
                sums, _ = task.loss(outputs, seed.y)
                kl = F.kl_div(F.log_softmax(outputs, -1), carry["teacher"][seed.rows], reduction="none").sum(-1)
                each = sums + carry["trust"] * kl
                real = torch.ones_like(each) if seed.mask is None else seed.mask.to(each.dtype)
                return (each * real).sum() / real.sum(), {}

            shared, _ = task.differentiate(mutual_loss, carry["params"])
            conflict = tree.dot(shared, local).clamp(max=0) / tree.dot(local, local).clamp(min=1e-12)
            shared = tree.add(shared, local, -conflict)  # onto the half-space where the local loss does not rise
            params = tree.add(carry["params"], tree.add(local, shared), -ctx.lr)
            return {**carry, "params": params, "buffers": buffers}, logs

        def finish(sent: Tree, carry: Tree, ctx: Context) -> tuple[Tree, Tree]:
            assert ctx.seed_set is not None
            posteriors = task.predict(carry["params"], carry["buffers"], ctx.seed_set.x).softmax(-1)
            kept = {"params": carry["params"], "buffers": carry["buffers"], "sent": posteriors, "round": ctx.round}
            return {"posteriors": posteriors}, kept

        def update(state: Tree, aggregate: Tree, info: RoundInfo) -> Tree:
            total = aggregate["posteriors"] * info.reached
            number = torch.tensor(float(info.round), dtype=torch.float64)
            return {"sum": total, "count": torch.tensor(float(info.reached), dtype=torch.float64), "round": number}

        return Algorithm(
            client=ClientHalf(
                start=start,
                step=step,
                finish=finish,
                streams={"private": Stream(batch_size=5), "seed": Stream(batch_size=4, source="seed_set")},
                lr=lambda round: lr,
                initial_state=initial_client_state,
            ),
            server=ServerHalf(
                update=update,
                weighting={"posteriors": "one"},
                initial_state=initial_server_state,
                broadcast=lambda state: state,
                evaluated_weights=lambda state, kept: {"params": kept["params"], "buffers": kept["buffers"]},
            ),
            traits=Traits(own_models=True),
        )

    return bind


def pooled_statistics(inner: Aggregator) -> Composite:
    """FBN's three stages over {"mean", "var"}: aggregate the means, the variances, and the squared distances of the
    means.

    With the mean as `inner` and equal weights this is the (biased) variance of the union: the average of the variances
    and the variance of the averages.
    """
    assert not isinstance(inner, Composite)

    def rule(updates: list[Tree], combine: Combine) -> Tree:
        mean = combine([{"mean": u["mean"]} for u in updates])["mean"]
        within = combine([{"var": u["var"]} for u in updates])["var"]
        between = combine([{"gap": (u["mean"] - mean) ** 2} for u in updates])["gap"]
        return {"mean": mean, "var": within + between}

    return Composite(rule, inner)


def statistics(momentum: float = 0.1) -> Recipe:
    """The statistics half of FBN on the contract: one batch per client, (M, V) at the server, nothing trained.

    The inputs themselves stand in for a layer's: a client normalises nothing, and sends the mean and the biased
    variance of its real examples.
    """

    def bind(task: Task) -> Algorithm:
        def initial_server_state(weights: Tree | None, federation: Federation) -> Tree:
            assert weights is not None
            size = weights["params"]["0.weight"].shape[1]
            return {**weights, "M": torch.zeros(size, dtype=torch.float64), "V": torch.ones(size, dtype=torch.float64)}

        def start(sent: Tree, state: Tree, ctx: Context) -> Tree:
            return {"mean": torch.zeros_like(sent["M"]), "var": torch.zeros_like(sent["V"]), "M": sent["M"]}

        def step(carry: Tree, batches: Batches, ctx: Context) -> tuple[Tree, Logs]:
            mean, var = real_statistics(batches["private"])
            return {**carry, "mean": mean, "var": var}, {}

        def finish(sent: Tree, carry: Tree, ctx: Context) -> tuple[Tree, Tree]:
            return {"statistics": {"mean": carry["mean"], "var": carry["var"]}}, {}

        def update(state: Tree, aggregate: Tree, info: RoundInfo) -> Tree:
            pooled = aggregate["statistics"]
            n = info.weighting["processed"]
            unbiased = pooled["var"] * (n / (n - 1))
            return {
                **state,
                "M": torch.lerp(state["M"], pooled["mean"], momentum),
                "V": torch.lerp(state["V"], unbiased, momentum),
            }

        return Algorithm(
            client=ClientHalf(
                start=start,
                step=step,
                finish=finish,
                streams={"private": Stream(batch_size="full")},
                lr=lambda round: 1.0,
            ),
            server=ServerHalf(
                update=update,
                weighting={"statistics": "processed"},
                initial_state=initial_server_state,
                broadcast=lambda state: {"M": state["M"], "V": state["V"]},
                aggregation={"statistics": pooled_statistics},
            ),
        )

    return bind


def real_statistics(batch: Batch) -> tuple[Tensor, Tensor]:
    """Mean [d] and biased variance [d] of the real rows of x [B, d]."""
    real = torch.ones_like(batch.x[:, :1]) if batch.mask is None else batch.mask.to(batch.x.dtype)[:, None]
    mean = (batch.x * real).sum(0) / real.sum()
    return mean, ((batch.x - mean) ** 2 * real).sum(0) / real.sum()
