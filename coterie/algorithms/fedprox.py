"""FedProx: FedAvg with a term that pulls each client back to the server's model.

    client  w_k <- w_k - lr (g(w_k) + mu (w_k - w))       # a step towards min_w_k F_k(w_k) + mu / 2 |w_k - w|^2
    server  w   <- w - server_lr mean(w - w_k)            # as FedAvg

With mu = 0 it is FedAvg. The pull acts on parameters; float buffers are averaged without it.

Departures from the paper: `local_epochs` or `local_steps` sets the number of steps, and nothing measures how inexactly
clients solve their problem (the paper's gamma). Clients are drawn with equal probability and weighted by their
examples, as in FedAvg; Algorithm 2 draws them in proportion to their examples and weights them equally.

Li, Sahu, Zaheer, Sanjabi, Talwalkar, Smith: Federated Optimization in Heterogeneous Networks, MLSys 2020, Algorithm 2.
"""

from __future__ import annotations

from dataclasses import replace
from typing import Unpack

from coterie.algorithms.fedavg import fedavg
from coterie.algorithms.local import LocalSGD, anchor, local_step, pull
from coterie.algorithms.local_options import LocalOptions
from coterie.algorithms.optimizers import Optimizer
from coterie.core import tree
from coterie.core.algorithm import Algorithm, Context, Recipe
from coterie.core.errors import require
from coterie.core.kind_checks import refuse_wrong_types
from coterie.core.kinds import NonNegative, Positive
from coterie.core.task import Task
from coterie.core.tree import Tree


@refuse_wrong_types
def fedprox(
    *,
    proximal_weight: NonNegative,
    server_lr: Positive = 1.0,
    server: Optimizer | None = None,
    **local_options: Unpack[LocalOptions],
) -> Recipe:
    """Return FedProx: FedAvg whose clients are pulled back to the server's model.

    Args:
        proximal_weight: mu, how strongly a client is pulled back to the server's model; 0 is FedAvg.
        server_lr, server: as in `fedavg`.
        **local_options: how clients train; see `LocalOptions`. `clip_norm` clips the gradient and the pull together.

    Raises:
        Mistake: a value is out of its range.
    """
    local = LocalSGD(**local_options)
    require("proximal_weight", proximal_weight, 0 <= proximal_weight < float("inf"), "0 or more")
    average = fedavg(server_lr=server_lr, server=server, **local_options)

    def start(broadcast: Tree, client_state: Tree, ctx: Context) -> Tree:
        """Return FedAvg's carry with the server's parameters as the anchor."""
        return {**local.initial_carry(broadcast, client_state), **anchor(broadcast["params"])}

    def add_pull(gradient: Tree, carry: Tree) -> Tree:
        """Return the gradient plus mu (w_k - w)."""
        return tree.add(gradient, pull(carry), proximal_weight)

    def bind(task: Task) -> Algorithm:
        base = average(task)
        return replace(base, client=replace(base.client, start=start, step=local_step(task, local, add_pull)))

    return bind
