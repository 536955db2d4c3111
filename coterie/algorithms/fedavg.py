"""Federated averaging: clients train locally on their own data, the server averages what they arrive at.

    server  w_0                                                                     # box line 1
            each round t:  S_t <- max(C N, 1) clients at random                     # 3, 4
                w   <- sum_{i in S_t} (n_i / m_t) w_i,  m_t = sum_{i in S_t} n_i    # 5 to 8
    client  E passes over its n_i examples in batches of B:  w <- w - lr grad l(w; b)

A client sends w - w_i and the server takes the weighted mean away from w, which is the same average; sent as a
difference it can be clipped, quantised and checked, and handed to a server optimiser.

Departures from the paper: none in the algorithm. Momentum, weight decay, clipping and a decaying learning rate are
options that the box does not have; float buffers (BatchNorm's statistics) are averaged like parameters.

McMahan, Moore, Ramage, Hampson, Aguera y Arcas: Communication-Efficient Learning of Deep Networks from Decentralized
Data, AISTATS 2017, Algorithm 1 with the erratum of arXiv 1602.05629v4 (the average is over the round's cohort, weighted
n_i / m_t).
"""

from __future__ import annotations

from typing import Unpack

from coterie.algorithms.local import LocalSGD, apply_delta, delta, local_step
from coterie.algorithms.local_options import LocalOptions
from coterie.algorithms.optimizers import Optimizer, sgd
from coterie.core.algorithm import (
    DIFFERENCE,
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
from coterie.core.kind_checks import refuse_wrong_types
from coterie.core.kinds import Positive, PositiveFraction
from coterie.core.task import Task
from coterie.core.tree import Tree


@refuse_wrong_types
def fedavg(
    *, server_lr: Positive = 1.0, server: Optimizer | None = None, **local_options: Unpack[LocalOptions]
) -> Recipe:
    """Return federated averaging.

    Args:
        server_lr: the share of the averaged difference that the server applies; 1 is the paper's average.
        server: the optimiser that the server uses instead; see `coterie.algorithms.optimizers`.
        **local_options: how clients train; see `LocalOptions`.

    Raises:
        Mistake: a value is out of its range, `server` is not an optimiser, or both `server` and `server_lr` are given.
    """
    local = LocalSGD(**local_options)
    allowed = "a server optimiser, such as coterie.algorithms.optimizers.adam(lr=0.1)"
    require("server", server, server is None or isinstance(server, Optimizer), allowed)
    require("server_lr", server_lr, server is None or server_lr == 1.0, "left out beside `server`, which has its own")
    optimizer = server or sgd(server_lr)

    def bind(task: Task) -> Algorithm:
        def initial_server_state(weights: Tree | None, federation: Federation) -> Tree:
            weights = one_architecture(weights)
            return {**weights, "server": optimizer.init(weights["params"])}

        def start(broadcast: Tree, client_state: Tree, ctx: Context) -> Tree:
            return local.initial_carry(broadcast, client_state)

        def finish(broadcast: Tree, carry: Tree, ctx: Context) -> tuple[Tree, Tree]:
            return {"delta": delta(broadcast, carry)}, local.client_state(carry)

        def update(server_state: Tree, aggregate: Tree, info: RoundInfo) -> Tree:
            mean = aggregate["delta"]  # of w - w_i
            params, moments = optimizer.apply(server_state["params"], mean["params"], server_state["server"])
            return {**apply_delta(server_state, params, mean["buffers"]), "server": moments}

        return Algorithm(
            client=ClientHalf(
                start=start,
                step=local_step(task, local),
                finish=finish,
                streams={"private": local.stream()},
                lr=local.lr,
                initial_state=local.initial_client_state,
            ),
            server=ServerHalf(
                update=update,
                weighting={"delta": "examples"},
                initial_state=initial_server_state,
                private={"delta": DIFFERENCE},
            ),
        )

    return bind


@refuse_wrong_types
def fedsgd(*, lr: Positive, lr_decay: PositiveFraction = 1.0) -> Recipe:
    """Return FedSGD, the baseline of McMahan et al. 2017: one full-batch gradient per client and round.

    It is FedAvg with E = 1 and B = n_i.
    """
    return fedavg(lr=lr, lr_decay=lr_decay, local_epochs=1, batch_size="full")
