"""SCAFFOLD: control variates take the drift out of local training, so that many local steps on unlike clients still
head for the optimum.

    server  w, c                                          c estimates the gradient of the objective
    client  c_i                                           kept between rounds; estimates its own gradient
            w_i <- w_i - lr (g_i(w_i) - c_i + c)          # K_i times
            c_i+ <- grad F_i(w)                           # option I: control = "gradient"
            c_i+ <- c_i - c + (w - w_i) / (K_i lr)        # option II: control = "difference"
    server  w <- w - server_lr mean(w - w_i)
            c <- c + sum_{i in S} p_i (c_i+ - c_i)        # p_i = 1 / N, or n_i / n

Option II is free: it is the mean of the gradients that the steps took anyway. Option I costs one more pass over the
client's data, in one batch, and is free of the noise of minibatches.

`objective` says whose optimum is sought, and decides both weights together: "examples" is sum_i (n_i / n) F_i, as in
FedAvg, "clients" is the mean of the F_i, as in the SCAFFOLD paper. Because c moves by exactly p_i for each client that
was reached, c = sum_i p_i c_i holds after any pattern of absences; and rounds come to rest only where c = 0, which is
the optimum of the p_i. So it is the control variates' weights that decide where it ends: models weighted by n_i with
control variates averaged evenly, as some implementations have it, still go to the optimum of "clients".

Departures from the paper: `objective` "examples" is the default. Control variates act on parameters; float buffers are
averaged as they are. With BatchNorm, grad F_i(w) is that of one batch of all examples.

Karimireddy, Kale, Mohri, Reddi, Stich, Suresh: SCAFFOLD: Stochastic Controlled Averaging for Federated Learning, ICML
    2020, Algorithm 1.
"""

from __future__ import annotations

from typing import Literal, Unpack

from coterie.algorithms.local import LocalOptions, LocalSGD, apply_delta, delta, local_step
from coterie.algorithms.objective import Objective, reached_share, total, weight_of
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
    Stream,
    one_architecture,
)
from coterie.core.errors import require
from coterie.core.task import Task
from coterie.core.tree import Tree


def scaffold(
    *,
    objective: Objective = "examples",
    control: Literal["difference", "gradient"] = "difference",
    server_lr: float = 1.0,
    **local_options: Unpack[LocalOptions],
) -> Recipe:
    """SCAFFOLD.

    Args:
        objective: whose optimum is sought; see above.
        control: how a client estimates its gradient; see above.
        server_lr: the share of the averaged difference that the server applies.
        **local_options: how clients train; see `LocalSGD`. With control "difference" momentum must be 0:
            (w - w_i) / (K_i lr) is the mean gradient of plain SGD only.

    Raises:
        Mistake: a value is out of its range.
    """
    local, kind = LocalSGD(**local_options), weight_of(objective)
    require("control", control, control in ("difference", "gradient"), '"difference" or "gradient"')
    plain = local.momentum == 0 or control == "gradient"
    require("momentum", local.momentum, plain, '0 with scaffold, unless control = "gradient"')
    require("server_lr", server_lr, 0 < server_lr < float("inf"), "a number above 0")

    def bind(task: Task) -> Algorithm:
        def initial_server_state(weights: Tree | None, federation: Federation) -> Tree:
            weights = one_architecture(weights)
            return {**weights, "control": tree.zeros_like(weights["params"]), "total": total(objective, federation)}

        def initial_client_state(weights: Tree) -> Tree:
            return {"control": tree.zeros_like(weights["params"]), **local.initial_client_state(weights)}

        def broadcast(state: Tree) -> Tree:
            return {name: state[name] for name in ("params", "buffers", "control")}

        def start(sent: Tree, state: Tree, ctx: Context) -> Tree:
            correction = tree.sub(sent["control"], state["control"])  # c - c_i
            gradient = {"gradient": tree.zeros_like(correction)} if control == "gradient" else {}
            return {**local.initial_carry(sent, state), "correction": correction, **gradient}

        def correct(grads: Tree, carry: Tree) -> Tree:
            return tree.add(grads, carry["correction"])  # g_i(w_i) - c_i + c

        descend = local_step(task, local, correct)

        def step(carry: Tree, batch: Batches, ctx: Context) -> tuple[Tree, Logs]:
            if "all" in batch:  # the first step, whose weights are still the server's
                gradient, _, _ = task.gradient(carry["params"], carry["buffers"], batch["all"])
                carry = {**carry, "gradient": gradient}
            return descend(carry, batch, ctx)

        def finish(sent: Tree, carry: Tree, ctx: Context) -> tuple[Tree, Tree]:
            change, correction = delta(sent, carry), carry["correction"]
            if control == "gradient":
                after = carry["gradient"]  # option I
            else:
                after = tree.sub(tree.scale(change["params"], 1 / (ctx.steps * ctx.lr)), correction)  # option II
            moved_by = tree.sub(tree.add(after, correction), sent["control"])  # c_i+ - c_i
            return {"delta": change, "control": moved_by}, {"control": after, **local.client_state(carry)}

        def update(state: Tree, aggregate: Tree, info: RoundInfo) -> Tree:
            params = tree.add(state["params"], aggregate["delta"]["params"], -server_lr)
            share = reached_share(objective, info, state["total"])
            c = tree.add(state["control"], aggregate["control"], share)
            return {**state, **apply_delta(state, params, aggregate["delta"]["buffers"]), "control": c}

        return Algorithm(
            client=ClientHalf(
                start=start,
                step=step,
                finish=finish,
                streams={"private": local.stream()}
                | ({"all": Stream("full", once=True)} if control == "gradient" else {}),
                lr=local.rate,
                initial_state=initial_client_state,
            ),
            server=ServerHalf(
                update=update,
                weighting={"delta": kind, "control": kind},
                initial_state=initial_server_state,
                broadcast=broadcast,
            ),
        )

    return bind
