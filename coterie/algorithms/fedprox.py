"""FedProx: FedAvg whose clients are held near the server's model by a spring.

    client  w_k <- w_k - lr (g(w_k) + mu (w_k - w))       # a step towards min_w_k F_k(w_k) + mu / 2 |w_k - w|^2
    server  w   <- w - server_lr mean(w - w_k)            # as FedAvg

With mu = 0 it is FedAvg. The spring acts on parameters; float buffers are averaged as they are.

Departures from the paper: clients take the number of steps that they are told, and nothing measures how inexactly they
solve their problem (the paper's gamma). Clients are drawn evenly and averaged by their examples, as in FedAvg, where
Algorithm 2 draws them by their examples and averages evenly.

Li, Sahu, Zaheer, Sanjabi, Talwalkar, Smith: Federated Optimization in Heterogeneous Networks, MLSys 2020, Algorithm 2.
"""

from __future__ import annotations

from dataclasses import replace
from typing import Unpack

from coterie.algorithms.fedavg import fedavg
from coterie.algorithms.local import LocalOptions, LocalSGD, local_step
from coterie.algorithms.server import ServerOptimizer
from coterie.core import tree
from coterie.core.algorithm import Algorithm, Context, Recipe
from coterie.core.errors import require
from coterie.core.task import Task
from coterie.core.tree import Tree


def fedprox(
    *,
    proximal_weight: float,
    server_lr: float = 1.0,
    server: ServerOptimizer | None = None,
    **local_options: Unpack[LocalOptions],
) -> Recipe:
    """FedProx.

    Args:
        proximal_weight: mu, how strongly a client is pulled back to the server's model; 0 is FedAvg.
        server_lr, server: as in `fedavg`.
        **local_options: how clients train; see `LocalSGD`. `clip_norm` clips the gradient and the pull together.

    Raises:
        Mistake: a value is out of its range.
    """
    local = LocalSGD(**local_options)
    require("proximal_weight", proximal_weight, 0 <= proximal_weight < float("inf"), "0 or more")
    average = fedavg(server_lr=server_lr, server=server, **local_options)

    def start(broadcast: Tree, state: Tree, ctx: Context) -> Tree:
        return {**local.initial_carry(broadcast, state), "anchor": broadcast["params"]}

    def pulled(grads: Tree, carry: Tree) -> Tree:
        return tree.add(grads, tree.sub(carry["params"], carry["anchor"]), proximal_weight)

    def bind(task: Task) -> Algorithm:
        base = average(task)
        return replace(base, client=replace(base.client, start=start, step=local_step(task, local, pulled)))

    return bind
