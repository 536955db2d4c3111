"""FedBN: FedAvg of everything except the normalisation layers, which stay with their clients.

    client  w_i = (shared leaves of the server's, own normalisation leaves), trained as in FedAvg
            sends the difference in the shared leaves, and keeps the others
    server  shared leaves <- their weighted mean

Every client ends with a model of its own. It is made for clients whose inputs differ (cameras, scanners); a client that
never took part has the initial normalisation layers.

Departures from the paper: normalisation layers of every kind stay, found by type; the paper names BatchNorm alone. The
mean is weighted by examples, as in FedAvg; the paper's clients count alike.

Li, Jiang, Zhang, Kamp, Dou: FedBN: Federated Learning on Non-IID Features via Local Batch Normalization, ICLR 2021,
Algorithm 1.
"""

from __future__ import annotations

from dataclasses import replace
from typing import Unpack

from coterie.algorithms.fedavg import fedavg
from coterie.algorithms.local_options import LocalOptions
from coterie.algorithms.optimizers import Optimizer
from coterie.core.algorithm import Algorithm, Context, Federation, Recipe, one_architecture
from coterie.core.errors import Mistake
from coterie.core.kind_checks import refuse_wrong_types
from coterie.core.kinds import Positive
from coterie.core.task import Task
from coterie.core.tree import Tree


@refuse_wrong_types
def fedbn(
    *, server_lr: Positive = 1.0, server: Optimizer | None = None, **local_options: Unpack[LocalOptions]
) -> Recipe:
    """Return FedBN: FedAvg of everything except the normalisation layers, which stay with their clients.

    Args:
        server_lr, server: as in `fedavg`.
        **local_options: how clients train; see `LocalOptions`.

    Raises:
        Mistake: a value is out of its range; when bound to a model, that it has no normalisation layer.
    """
    average = fedavg(server_lr=server_lr, server=server, **local_options)

    def bind(task: Task) -> Algorithm:
        if not task.norm_leaves:
            raise Mistake("model: it has no normalisation layer for clients to keep; choose fedavg")
        base = average(task)

        def initial_server_state(weights: Tree | None, federation: Federation) -> Tree:
            return base.server.initial_state(split(one_architecture(weights), task.norm_leaves)[0], federation)

        def initial_client_state(weights: Tree) -> Tree:
            return {"own": split(weights, task.norm_leaves)[1], **base.client.initial_state(weights)}

        def start(broadcast: Tree, state: Tree, ctx: Context) -> Tree:
            return base.client.start(join(broadcast, state["own"]), state, ctx)

        def finish(broadcast: Tree, carry: Tree, ctx: Context) -> tuple[Tree, Tree]:
            update, state = base.client.finish(broadcast, carry, ctx)
            return update, {"own": split(carry, task.norm_leaves)[1], **state}

        return replace(
            base,
            client=replace(base.client, start=start, finish=finish, initial_state=initial_client_state),
            server=replace(
                base.server,
                initial_state=initial_server_state,
                evaluated_weights=lambda state, kept: join(state, kept["own"]),
            ),
            traits=replace(base.traits, own_models=True),
        )

    return bind


def split(weights: Tree, own: frozenset[str]) -> tuple[Tree, Tree]:
    """Return {"params", "buffers"} in two: without the leaves named in `own`, and these leaves alone."""
    parts = {kind: weights[kind].items() for kind in ("params", "buffers")}
    return (
        {kind: {name: leaf for name, leaf in leaves if name not in own} for kind, leaves in parts.items()},
        {kind: {name: leaf for name, leaf in leaves if name in own} for kind, leaves in parts.items()},
    )


def join(shared: Tree, own: Tree) -> Tree:
    """Return the {"params", "buffers"} of one model from its two parts."""
    return {kind: {**shared[kind], **own[kind]} for kind in ("params", "buffers")}
