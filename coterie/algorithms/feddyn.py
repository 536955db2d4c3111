"""FedDyn: every round bends each client's objective a little more, until all clients' optima meet at the federation's.

    server  w, h                                          h is sum_i p_i g_i, 0 at the optimum
    client  g_i                                           kept between rounds; approaches its gradient at w
            w_i <- w_i - lr (g(w_i) - g_i + alpha (w_i - w))    # K_i times, towards the box's argmin
            g_i <- g_i + alpha (w - w_i)
    server  h <- h + alpha sum_{i in S} p_i (w - w_i)           # p_i = n_i / n, or 1 / N
            w <- mean_{i in S}(w_i) - h / alpha

The exact minimiser has gradient g_i - alpha (w_i - w) at w_i, which becomes the new g_i. Where w stays put, so do all
g_i and h, hence h = 0 and every w_i = w: then sum_i p_i grad F_i(w) = 0, the optimum that `objective` names, after any
pattern of absences. h and the mean must use the same p_i, so one option decides both.

Departures from the paper: `objective` "examples" is the default, "clients" is the paper's. The argmin is approached by
as many steps of SGD as `local_epochs` or `local_steps` say. Everything acts on parameters; float buffers take the plain
weighted mean.

Acar, Zhao, Matas Navarro, Mattina, Whatmough, Saligrama: Federated Learning Based on Dynamic Regularization, ICLR 2021,
Algorithm 1.
"""

from __future__ import annotations

from typing import Unpack

from coterie.algorithms.local import LocalOptions, LocalSGD, apply_delta, delta, local_step
from coterie.algorithms.objective import Objective, reached_share, total, weight_of
from coterie.core import tree
from coterie.core.algorithm import (
    Algorithm,
    ClientHalf,
    Context,
    Federation,
    Recipe,
    RoundInfo,
    ServerHalf,
    one_architecture,
)
from coterie.core.errors import require
from coterie.core.task import Task
from coterie.core.tree import Tree


def feddyn(
    *, proximal_weight: float, objective: Objective = "examples", **local_options: Unpack[LocalOptions]
) -> Recipe:
    """FedDyn.

    Args:
        proximal_weight: alpha > 0: how strongly a client is pulled back to the server's model, and how slowly its
            objective bends.
        objective: whose optimum is sought; see above.
        **local_options: how clients train; see `LocalSGD`.

    Raises:
        Mistake: a value is out of its range.
    """
    local, alpha = LocalSGD(**local_options), proximal_weight
    require("proximal_weight", alpha, 0 < alpha < float("inf"), "a number above 0")
    kind = weight_of(objective)

    def bind(task: Task) -> Algorithm:
        def initial_server_state(weights: Tree | None, federation: Federation) -> Tree:
            weights = one_architecture(weights)
            return {**weights, "h": tree.zeros_like(weights["params"]), "total": total(objective, federation)}

        def initial_client_state(weights: Tree) -> Tree:
            return {"gradient": tree.zeros_like(weights["params"]), **local.initial_client_state(weights)}

        def start(sent: Tree, state: Tree, ctx: Context) -> Tree:
            return {**local.initial_carry(sent, state), "anchor": sent["params"], "gradient": state["gradient"]}

        def bent(grads: Tree, carry: Tree) -> Tree:
            pull = tree.sub(carry["params"], carry["anchor"])
            return tree.add(tree.sub(grads, carry["gradient"]), pull, alpha)  # g(w_i) - g_i + alpha (w_i - w)

        def finish(sent: Tree, carry: Tree, ctx: Context) -> tuple[Tree, Tree]:
            change = delta(sent, carry)
            gradient = tree.add(carry["gradient"], change["params"], alpha)
            return {"delta": change}, {"gradient": gradient, **local.client_state(carry)}

        def update(state: Tree, aggregate: Tree, info: RoundInfo) -> Tree:
            mean = aggregate["delta"]  # of w - w_i over the reached clients
            share = reached_share(objective, info, state["total"])
            h = tree.add(state["h"], mean["params"], alpha * share)
            params = tree.add(tree.sub(state["params"], mean["params"]), h, -1 / alpha)  # mean(w_i) - h / alpha
            return {**state, **apply_delta(state, params, mean["buffers"]), "h": h}

        return Algorithm(
            client=ClientHalf(
                start=start,
                step=local_step(task, local, bent),
                finish=finish,
                streams={"private": local.stream()},
                lr=local.rate,
                initial_state=initial_client_state,
            ),
            server=ServerHalf(
                update=update,
                weighting={"delta": kind},
                initial_state=initial_server_state,
            ),
        )

    return bind
