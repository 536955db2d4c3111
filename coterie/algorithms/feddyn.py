"""FedDyn: every round changes each client's objective a little, until all clients have the federation's optimum.

    server  w, h                                          h is sum_i p_i g_i, 0 at the optimum
    client  g_i                                           kept between rounds; approaches its gradient at w
            w_i <- w_i - lr (g(w_i) - g_i + alpha (w_i - w))    # K_i times, towards the box's argmin
            g_i <- g_i + alpha (w - w_i)
    server  h <- h + alpha sum_{i in S} p_i (w - w_i)           # p_i = n_i / n, or 1 / N
            w <- mean_{i in S}(w_i) - h / alpha

The exact minimiser has gradient g_i - alpha (w_i - w) at w_i, which becomes the new g_i. If w no longer changes, all
g_i and h do not change either, so h = 0 and every w_i = w. Then sum_i p_i grad F_i(w) = 0: that is the optimum that
`objective` names, whichever clients were absent. h and the mean must use the same p_i, so one option decides both.

Departures from the paper: `objective` "examples" is the default, "clients" is the paper's. The argmin is
approached by SGD; `local_epochs` or `local_steps` sets the number of steps. Everything acts on parameters; float
buffers take the plain weighted mean.

Acar, Zhao, Matas Navarro, Mattina, Whatmough, Saligrama: Federated Learning Based on Dynamic Regularization, ICLR 2021,
Algorithm 1.
"""

from __future__ import annotations

from typing import Unpack

from coterie.algorithms.local import LocalSGD, anchor, apply_delta, delta, local_step, pull
from coterie.algorithms.local_options import LocalOptions
from coterie.algorithms.objective import Objective, objective_weighting, reached_share, total_weight
from coterie.core import tree
from coterie.core.algorithm import (
    Algorithm,
    ClientHalf,
    Context,
    Federation,
    Recipe,
    RoundInfo,
    ServerHalf,
    Traits,
    one_architecture,
)
from coterie.core.errors import require
from coterie.core.kind_checks import refuse_wrong_types
from coterie.core.kinds import Positive
from coterie.core.task import Task
from coterie.core.tree import Tree


@refuse_wrong_types
def feddyn(
    *, proximal_weight: Positive, objective: Objective = "examples", **local_options: Unpack[LocalOptions]
) -> Recipe:
    """Return FedDyn: FedAvg whose clients' objectives change a little every round, until all have the same optimum.

    Args:
        proximal_weight: alpha > 0: how strongly a client is pulled back to the server's model, and how slowly its
            objective changes.
        objective: whose optimum is sought: "examples" or "clients"; see `coterie.algorithms.objective`.
        **local_options: how clients train; see `LocalOptions`. Not adamw, whose decay is not part of the objective
            that the g_i are gradients of.

    Raises:
        Mistake: a value is out of its range.
    """
    local, alpha = LocalSGD(**local_options), proximal_weight
    require("proximal_weight", alpha, 0 < alpha < float("inf"), "a number above 0")
    optimizer = local.options["optimizer"]
    require(
        "optimizer", optimizer, optimizer != "adamw", "another with feddyn, whose objective has no part in its decay"
    )
    weighting = objective_weighting(objective)

    def bind(task: Task) -> Algorithm:
        def initial_server_state(weights: Tree | None, federation: Federation) -> Tree:
            weights = one_architecture(weights)
            return {**weights, "h": tree.zeros_like(weights["params"]), "total": total_weight(objective, federation)}

        def initial_client_state(weights: Tree) -> Tree:
            return {"gradient": tree.zeros_like(weights["params"]), **local.initial_client_state(weights)}

        def start(broadcast: Tree, client_state: Tree, ctx: Context) -> Tree:
            carry = local.initial_carry(broadcast, client_state)
            return {**carry, **anchor(broadcast["params"]), "gradient": client_state["gradient"]}

        def correct(gradient: Tree, carry: Tree) -> Tree:
            """Return the gradient of the client's changed objective."""
            return tree.add(tree.sub(gradient, carry["gradient"]), pull(carry), alpha)  # g(w_i) - g_i + alpha (w_i - w)

        def finish(broadcast: Tree, carry: Tree, ctx: Context) -> tuple[Tree, Tree]:
            """Return w - w_i as the update, and g_i + alpha (w - w_i) as the client's new g_i."""
            change = delta(broadcast, carry)
            gradient = tree.add(carry["gradient"], change["params"], alpha)
            return {"delta": change}, {"gradient": gradient, **local.client_state(carry)}

        def update(server_state: Tree, aggregate: Tree, info: RoundInfo) -> Tree:
            """Move h by the reached clients' share of alpha mean(w - w_i), then set w to mean(w_i) - h / alpha."""
            mean = aggregate["delta"]  # of w - w_i over the reached clients
            share = reached_share(objective, info, server_state["total"])
            h = tree.add(server_state["h"], mean["params"], alpha * share)
            params = tree.add(tree.sub(server_state["params"], mean["params"]), h, -1 / alpha)  # mean(w_i) - h / alpha
            return {**server_state, **apply_delta(server_state, params, mean["buffers"]), "h": h}

        return Algorithm(
            client=ClientHalf(
                start=start,
                step=local_step(task, local, correct),
                finish=finish,
                streams={"private": local.stream()},
                lr=local.lr,
                initial_state=initial_client_state,
            ),
            server=ServerHalf(
                update=update,
                weighting={"delta": weighting},
                initial_state=initial_server_state,
                private="feddyn's h must be the sum of what its clients keep, and a bounded, noisy sum is not; choose "
                "fedprox, or scaffold",
            ),
            traits=Traits(lossy=()),  # h must be the sum of what clients keep, so no update may be rounded on its way
        )

    return bind
