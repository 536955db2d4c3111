"""Federated self-supervised learning: FedAvg on a loss that needs no labels.

    client  two views x_1, x_2 of each example of a batch; a step on the loss that compares them (`self_supervised`)
            sends the difference in the encoder, and in the heads behind it, unless these stay at the client
    server  w <- w - server_lr mean(w - w_i)                     # as FedAvg

The result is an encoder from which a supervised run can start. The classifier is neither trained nor sent. No label is
used.

The heads behind the encoder are averaged with it, or stay at the client (`heads`). MoCo's queue of keys always stays at
the client, because keys reveal its examples. The encoder of keys starts every round as a copy of the server's.

Departures from the paper: the paper names this stage and gives no algorithm for it; the reading above is ours.

Chen, Tu, Li, Shen, Chao: On the Importance and Applicability of Pre-Training for Federated Learning, ICLR 2023.
"""

from __future__ import annotations

import hashlib
from dataclasses import replace
from typing import Literal, Unpack

from coterie.algorithms.batchnorm.fedbn import join, split
from coterie.algorithms.fedavg import fedavg
from coterie.algorithms.local import LocalSGD, delta
from coterie.algorithms.local_options import LocalOptions
from coterie.algorithms.optimizers import Optimizer
from coterie.algorithms.self_supervised import KEY, METHODS, PREFIX, QUEUE, Method, method_arguments
from coterie.core import rng, tree
from coterie.core.algorithm import Algorithm, Batches, Context, Federation, Logs, Recipe, RoundInfo, one_architecture
from coterie.core.errors import Mistake, require
from coterie.core.kind_checks import refuse_wrong_types
from coterie.core.kinds import Count, Fraction, Positive
from coterie.core.task import Task
from coterie.core.tree import Tree
from coterie.objectives.views import two_views

Loss = Literal["simsiam", "moco"]
CLIENT_DEFAULTS = {"moco": {"queue": 1024, "key_momentum": 0.99}}
"""Defaults for a client, which has few examples and takes few steps, where they differ from the method's own."""
VIEWS_POSITION = -2
"""The position of the views' randomness in a step's key."""


@refuse_wrong_types
def fedssl(
    *,
    loss: Loss = "simsiam",
    heads: Literal["server", "client"] = "server",
    projection: Count | None = None,
    hidden: Count | None = None,
    queue: Count | None = None,
    key_momentum: Fraction | None = None,
    temperature: Positive | None = None,
    server_lr: Positive = 1.0,
    server: Optimizer | None = None,
    **local_options: Unpack[LocalOptions],
) -> Recipe:
    """Return federated self-supervised learning: FedAvg of an encoder, on the loss of SimSiam or MoCo.

    Args:
        loss: "simsiam" or "moco".
        heads: whether the heads behind the encoder are averaged ("server") or stay at each client ("client").
        projection: the width of the projections that are compared; 512 for simsiam and 128 for moco unless given.
        hidden: the inner width of simsiam's predictor; 128 unless given.
        queue, key_momentum, temperature: moco's own; 1024, 0.99 and 0.2 unless given. See `moco`.
        server_lr, server: as in `fedavg`.
        **local_options: how clients train; see `LocalOptions`.

    Raises:
        Mistake: a value is out of its range or belongs to the other loss, or a batch may be longer than the queue; when
            bound to a model, that it has no layer before its classifier.
    """
    local = LocalSGD(**local_options)
    require("heads", heads, heads in ("server", "client"), '"server" or "client"')
    given = {"projection": projection, "hidden": hidden, "queue": queue}
    own = method_arguments(loss, given | {"key_momentum": key_momentum, "temperature": temperature})
    options = CLIENT_DEFAULTS.get(loss, {}) | own
    _require_batch_fits(local, options.get("queue"))
    average = fedavg(server_lr=server_lr, server=server, **local_options)
    stays = (QUEUE, KEY, *((PREFIX,) if heads == "client" else ()))

    def bind(task: Task) -> Algorithm:
        method, base = METHODS[loss](task, **options), average(task)

        def initial_server_state(weights: Tree | None, federation: Federation) -> Tree:
            """Return FedAvg's initial state of the encoder and the averaged heads, and the untrained classifier."""
            weights = one_architecture(weights)
            shared, _ = _split_by_prefix(_add_heads(method, task, weights), stays)
            return {**base.server.initial_state(shared, federation), "classifier": _split_classifier(task, weights)[1]}

        def initial_client_state(weights: Tree) -> Tree:
            """Return the initial weights that stay at a client, and the optimiser's state if it is kept."""
            whole = _add_heads(method, task, weights)
            return {**_own_part(whole, stays), **local.initial_client_state(whole)}

        def start(broadcast: Tree, client_state: Tree, ctx: Context) -> Tree:
            """Return the carry of the server's weights joined with the client's own."""
            own = client_state.get("own", {"params": {}, "buffers": {}})
            return local.initial_carry(method.prepare(join(broadcast, own)), client_state)

        def step(carry: Tree, batches: Batches, ctx: Context) -> tuple[Tree, Logs]:
            """Take a step on the loss that compares two random views of each example."""
            batch = batches["private"]
            views = two_views(batch.x, rng.fold(batch.key, VIEWS_POSITION))
            grads, buffers, logs = method.gradient(carry["params"], carry["buffers"], views, batch.mask, batch.key)
            return local.descend(carry, grads, buffers, ctx, logs["count"]), logs

        def finish(broadcast: Tree, carry: Tree, ctx: Context) -> tuple[Tree, Tree]:
            return {"delta": delta(broadcast, carry)}, {**_own_part(carry, stays), **local.client_state(carry)}

        def update(server_state: Tree, aggregate: Tree, info: RoundInfo) -> Tree:
            """Return FedAvg's new state; the classifier stays."""
            return {**server_state, **base.server.update(server_state, aggregate, info)}

        return replace(
            base,
            client=replace(
                base.client,
                start=start,
                step=step,
                finish=finish,
                initial_state=initial_client_state,
            ),
            server=replace(
                base.server,
                update=update,
                initial_state=initial_server_state,
                evaluated_weights=lambda server_state, client_state: join(
                    _split_by_prefix(server_state, (PREFIX,))[0], server_state["classifier"]
                ),
            ),
            traits=replace(
                base.traits,
                predicts=False,
            ),
        )

    return bind


def _require_batch_fits(local: LocalSGD, queue: int | None) -> None:
    """Refuse batches that may be longer than MoCo's queue of keys; without a queue, nothing is refused."""
    size = local.options["batch_size"]
    if queue is not None and (size == "full" or size > queue):
        raise Mistake(
            f"a batch must fit into it, and `batch_size` = {size}; give a longer queue or a smaller batch",
            key="queue",
            value=queue,
        )


def _split_classifier(task: Task, weights: Tree) -> tuple[Tree, Tree]:
    """Return the encoder's weights, and the classifier's."""
    assert task.encoder is not None, "a method of self-supervised learning was made for this task"
    return split(weights, task.encoder.head)


def _add_heads(method: Method, task: Task, weights: Tree) -> Tree:
    """Return the initial weights with the method's heads instead of the classifier.

    The heads' randomness comes from the classifier's initial weights, which given weights never replace, and so from
    the rng seed.
    """
    encoder, classifier = _split_classifier(task, weights)
    digest = hashlib.sha256(b"".join(x.float().cpu().numpy().tobytes() for x in tree.leaves(classifier)))
    heads = method.heads(rng.number("heads", digest.hexdigest()))
    like = next(iter(weights["params"].values()))
    return join(encoder, tree.map(lambda x: x.to(like.device, like.dtype if x.is_floating_point() else x.dtype), heads))


def _split_by_prefix(weights: Tree, prefixes: tuple[str, ...]) -> tuple[Tree, Tree]:
    """Return {"params", "buffers"} without the leaves whose names have one of the prefixes, and with only these."""
    names = (name for kind in ("params", "buffers") for name in weights[kind])
    return split(weights, frozenset(name for name in names if name.startswith(prefixes)))


def _own_part(weights: Tree, stays: tuple[str, ...]) -> Tree:
    """Return {"own": the weights that a client keeps}: those with the prefixes, except the encoder of keys."""
    own = _split_by_prefix(_split_by_prefix(weights, stays)[1], (KEY,))[0]
    return {"own": own} if any(own.values()) else {}
