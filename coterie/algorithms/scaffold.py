"""SCAFFOLD: control variates remove the drift from local training on unlike clients.

So many local steps still lead to the optimum.

    server  w, c                                          c estimates the gradient of the objective
    client  c_i                                           kept between rounds; estimates its own gradient
            w_i <- w_i - lr (g_i(w_i) - c_i + c)          # K_i times
            c_i+ <- grad F_i(w)                           # option I: control = "gradient"
            c_i+ <- c_i - c + (w - w_i) / (K_i lr)        # option II: control = "difference"
    server  w <- w - server_lr mean(w - w_i)
            c <- c + sum_{i in S} p_i (c_i+ - c_i)        # p_i = 1 / N, or n_i / n

Option II costs nothing: it is the mean of the gradients that the steps took anyway. Option I costs one more pass over
the client's data, in one batch, and has no minibatch noise.

`objective` sets both weights p_i: "examples" seeks the optimum of sum_i (n_i / n) F_i, as FedAvg does, and "clients"
that of the mean of the F_i, as in the SCAFFOLD paper. Every reached client changes c by p_i (c_i+ - c_i), so
c = sum_i p_i c_i holds whichever clients were absent. The weights stop changing only where c = 0, which is the optimum
of the p_i. So the weights of the control variates decide where it ends: implementations that weight models by n_i, but
average control variates evenly, still reach the optimum of "clients".

Departures from the paper: `objective` "examples" is the default. Control variates act on parameters; float buffers are
averaged without them. With BatchNorm, grad F_i(w) is that of one batch of all examples.

Karimireddy, Kale, Mohri, Reddi, Stich, Suresh: SCAFFOLD: Stochastic Controlled Averaging for Federated Learning, ICML
    2020, Algorithm 1.
"""

from __future__ import annotations

from typing import Literal, Unpack

from coterie.algorithms.local import LocalSGD, apply_delta, delta, local_step
from coterie.algorithms.local_limits import require_constant_rate
from coterie.algorithms.local_options import LocalOptions
from coterie.algorithms.objective import Objective, objective_weighting, reached_share, total_weight
from coterie.algorithms.schedules import NEEDS_LENGTH
from coterie.core import tree
from coterie.core.algorithm import (
    DIFFERENCE,
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
    one_architecture,
)
from coterie.core.errors import require
from coterie.core.kind_checks import refuse_wrong_types
from coterie.core.kinds import Positive
from coterie.core.task import Task
from coterie.core.tree import Tree


@refuse_wrong_types
def scaffold(
    *,
    objective: Objective = "examples",
    control: Literal["difference", "gradient"] = "difference",
    server_lr: Positive = 1.0,
    **local_options: Unpack[LocalOptions],
) -> Recipe:
    """Return SCAFFOLD: local training whose gradients are corrected by control variates.

    Args:
        objective: whose optimum is sought: "examples" or "clients"; see `coterie.algorithms.objective`.
        control: how a client estimates its gradient: "difference" or "gradient"; see this module's docstring.
        server_lr: the share of the averaged difference that the server applies.
        **local_options: how clients train; see `LocalOptions`. With control "difference" the optimiser must be SGD
            without momentum: (w - w_i) / (K_i lr) is the mean gradient of plain SGD only.

    Raises:
        Mistake: a value is out of its range.
    """
    local, weighting = LocalSGD(**local_options), objective_weighting(objective)
    require("control", control, control in ("difference", "gradient"), '"difference" or "gradient"')
    _require_plain_sgd(local, control)
    require("server_lr", server_lr, 0 < server_lr < float("inf"), "a number above 0")

    def bind(task: Task) -> Algorithm:
        def initial_server_state(weights: Tree | None, federation: Federation) -> Tree:
            weights = one_architecture(weights)
            return {
                **weights,
                "control": tree.zeros_like(weights["params"]),
                "total": total_weight(objective, federation),
            }

        def initial_client_state(weights: Tree) -> Tree:
            return {"control": tree.zeros_like(weights["params"]), **local.initial_client_state(weights)}

        def make_broadcast(server_state: Tree) -> Tree:
            """Return the server's weights and its control variate c."""
            return {name: server_state[name] for name in ("params", "buffers", "control")}

        def start(broadcast: Tree, client_state: Tree, ctx: Context) -> Tree:
            """Return the carry of the server's weights, with the correction c - c_i."""
            correction = tree.sub(broadcast["control"], client_state["control"])  # c - c_i
            gradient = {"gradient": tree.zeros_like(correction)} if control == "gradient" else {}
            return {**local.initial_carry(broadcast, client_state), "correction": correction, **gradient}

        def correct(gradient: Tree, carry: Tree) -> Tree:
            """Return the gradient plus the correction c - c_i."""
            return tree.add(gradient, carry["correction"])  # g_i(w_i) - c_i + c

        descend = local_step(task, local, correct)

        def step(carry: Tree, batch: Batches, ctx: Context) -> tuple[Tree, Logs]:
            """Take a corrected step; with control "gradient" the first also computes the gradient on all data."""
            if "all" in batch:  # the first step, whose weights are still the server's
                gradient, _, _ = task.gradient(carry["params"], carry["buffers"], batch["all"])
                carry = {**carry, "gradient": gradient}
            return descend(carry, batch, ctx)

        def finish(broadcast: Tree, carry: Tree, ctx: Context) -> tuple[Tree, Tree]:
            """Return w - w_i and c_i+ - c_i as the update, and the client state with the new c_i+."""
            change, correction = delta(broadcast, carry), carry["correction"]
            if control == "gradient":
                after = carry["gradient"]  # option I
            else:
                after = tree.sub(
                    tree.scale(change["params"], 1 / (local.optimizer_steps(ctx.steps) * ctx.lr)), correction
                )  # option II
            change_of_control = tree.sub(tree.add(after, correction), broadcast["control"])  # c_i+ - c_i
            return {"delta": change, "control": change_of_control}, {"control": after, **local.client_state(carry)}

        def update(server_state: Tree, aggregate: Tree, info: RoundInfo) -> Tree:
            """Move w by the averaged difference, and c by the sum of p_i (c_i+ - c_i)."""
            params = tree.add(server_state["params"], aggregate["delta"]["params"], -server_lr)
            share = reached_share(objective, info, server_state["total"])
            c = tree.add(server_state["control"], aggregate["control"], share)
            weights = apply_delta(server_state, params, aggregate["delta"]["buffers"])
            return {**server_state, **weights, "control": c}

        return Algorithm(
            client=ClientHalf(
                start=start,
                step=step,
                finish=finish,
                streams={"private": local.stream()}
                | ({"all": Stream("full", once=True)} if control == "gradient" else {}),
                lr=local.lr,
                initial_state=initial_client_state,
            ),
            server=ServerHalf(
                update=update,
                weighting={"delta": weighting, "control": weighting},
                initial_state=initial_server_state,
                private={"delta": DIFFERENCE, "control": DIFFERENCE}
                if objective == "clients"
                else "scaffold's p_i = n_i / n depend on clients' data; set algorithm.objective = \"clients\"",
                broadcast=make_broadcast,
            ),
        )

    return bind


def _require_plain_sgd(local: LocalSGD, control: str) -> None:
    """Refuse local training whose mean gradient is not (w - w_i) / (K_i lr), where control = "difference" needs it."""
    if control == "gradient":
        return
    unless = 'with scaffold, unless control = "gradient"'
    optimizer, momentum = local.options["optimizer"], local.options["momentum"]
    require("optimizer", optimizer, optimizer == "sgd", f'"sgd" {unless}')
    require("momentum", momentum, momentum == 0, f"0 {unless}")
    require_constant_rate(local, unless)
    end = local.options["lr_end"]
    falls = local.options["schedule"] in NEEDS_LENGTH
    require("lr_end", end or 0.0, bool(end) or not falls, f"above 0 {unless}, since a client divides by the rate")
