"""Federated self-supervised learning: FedAvg on a loss that needs no labels.

    client  two views x_1, x_2 of each example of a batch; a step on the loss that compares them (`self_supervised`)
            sends the difference in the encoder, and in what stands behind it, unless that stays at the client
    server  w <- w - server_lr mean(w - w_i)                     # as FedAvg

It ends in an encoder that a supervised run starts from; the classifier is left as it was, is not sent, and learns from
nothing. No label is looked at.

What stands behind the encoder (`heads`) is averaged with it, or belongs to the client. Of MoCo, the queue of keys
always stays at the client, for keys are what its examples look like; the encoder of keys begins every round as the
server's.

Departures from a paper: the paper names this stage and gives no algorithm for it: the reading above is ours.

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
from coterie.algorithms.self_supervised import KEY, METHODS, PREFIX, QUEUE, Method, chosen
from coterie.core import rng, tree
from coterie.core.algorithm import Algorithm, Batches, Context, Federation, Logs, Recipe, RoundInfo, one_architecture
from coterie.core.errors import Mistake, require
from coterie.core.task import Task
from coterie.core.tree import Tree
from coterie.objectives.views import two_views

Loss = Literal["simsiam", "moco"]
SUITABLE = {"moco": {"queue": 1024, "key_momentum": 0.99}}
"""What suits a client, which has few examples and takes few steps, where a method's own default does not."""
VIEWS = -2
"""Where the views stand in a step's key."""


def fedssl(
    *,
    loss: Loss = "simsiam",
    heads: Literal["server", "client"] = "server",
    projection: int | None = None,
    hidden: int | None = None,
    queue: int | None = None,
    key_momentum: float | None = None,
    temperature: float | None = None,
    server_lr: float = 1.0,
    server: Optimizer | None = None,
    **local_options: Unpack[LocalOptions],
) -> Recipe:
    """Federated self-supervised learning.

    Args:
        loss: "simsiam" or "moco".
        heads: whether what stands behind the encoder is averaged ("server") or stays where it is trained ("client").
        projection: how many numbers are compared; 512 for simsiam and 128 for moco, unless given.
        hidden: of simsiam's predictor; 128 unless given.
        queue, key_momentum, temperature: of moco; 1024, 0.99 and 0.2 unless given.
        server_lr, server: as in `fedavg`.
        **local_options: how clients train; see `LocalSGD`.

    Raises:
        Mistake: a value is out of its range or belongs to the other loss, or a batch may be longer than the queue; when
            bound to a model, that there is nothing before its classifier to train.
    """
    local = LocalSGD(**local_options)
    require("heads", heads, heads in ("server", "client"), '"server" or "client"')
    given = {"projection": projection, "hidden": hidden, "queue": queue}
    own = chosen(loss, given | {"key_momentum": key_momentum, "temperature": temperature})
    options = SUITABLE.get(loss, {}) | own
    _fits(local, options.get("queue"))
    average = fedavg(server_lr=server_lr, server=server, **local_options)
    stays = (QUEUE, KEY, *((PREFIX,) if heads == "client" else ()))

    def bind(task: Task) -> Algorithm:
        method, base = METHODS[loss](task, **options), average(task)

        def initial_server_state(weights: Tree | None, federation: Federation) -> Tree:
            weights = one_architecture(weights)
            shared, _ = _parts(_begun(method, task, weights), stays)
            return {**base.server.initial_state(shared, federation), "classifier": _split(task, weights)[1]}

        def initial_client_state(weights: Tree) -> Tree:
            whole = _begun(method, task, weights)
            return {**_kept(whole, stays), **local.initial_client_state(whole)}

        def start(sent: Tree, state: Tree, ctx: Context) -> Tree:
            own = state.get("own", {"params": {}, "buffers": {}})
            return local.initial_carry(method.begin(join(sent, own)), state)

        def step(carry: Tree, batches: Batches, ctx: Context) -> tuple[Tree, Logs]:
            batch = batches["private"]
            views = two_views(batch.x, rng.fold(batch.key, VIEWS))
            grads, buffers, logs = method.gradient(carry["params"], carry["buffers"], views, batch.mask, batch.key)
            return local.descend(carry, grads, buffers, ctx), logs

        def finish(sent: Tree, carry: Tree, ctx: Context) -> tuple[Tree, Tree]:
            return {"delta": delta(sent, carry)}, {**_kept(carry, stays), **local.client_state(carry)}

        def update(state: Tree, aggregate: Tree, info: RoundInfo) -> Tree:
            return {**state, **base.server.update(state, aggregate, info)}

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
                evaluated_weights=lambda state, kept: join(_parts(state, (PREFIX,))[0], state["classifier"]),
            ),
            traits=replace(
                base.traits,
                predicts=False,
            ),
        )

    return bind


def _fits(local: LocalSGD, queue: int | None) -> None:
    """A batch must fit the queue."""
    size = local.options["batch_size"]
    if queue is not None and (size == "full" or size > queue):
        raise Mistake(
            f"a batch must fit into it, and `batch_size` = {size}; give a longer queue or a smaller batch",
            key="queue",
            value=queue,
        )


def _split(task: Task, weights: Tree) -> tuple[Tree, Tree]:
    """The encoder's weights, and the classifier's."""
    assert task.encoder is not None, "a method of self-supervised learning was made for this task"
    return split(weights, task.encoder.head)


def _begun(method: Method, task: Task, weights: Tree) -> Tree:
    """The initial weights, the classifier replaced by what stands behind an encoder.

    Its randomness comes from the classifier's initial weights, which no other weights replace, and so from the rng
    seed.
    """
    encoder, classifier = _split(task, weights)
    digest = hashlib.sha256(b"".join(x.float().cpu().numpy().tobytes() for x in tree.leaves(classifier)))
    heads = method.heads(rng.number("heads", digest.hexdigest()))
    like = next(iter(weights["params"].values()))
    return join(encoder, tree.map(lambda x: x.to(like.device, like.dtype if x.is_floating_point() else x.dtype), heads))


def _parts(weights: Tree, prefixes: tuple[str, ...]) -> tuple[Tree, Tree]:
    """{"params", "buffers"} without the leaves whose names begin so, and with these alone."""
    names = (name for kind in ("params", "buffers") for name in weights[kind])
    return split(weights, frozenset(name for name in names if name.startswith(prefixes)))


def _kept(weights: Tree, stays: tuple[str, ...]) -> Tree:
    """What a client keeps of its weights: nothing, or what stays with it but for the encoder of keys."""
    own = _parts(_parts(weights, stays)[1], (KEY,))[0]
    return {"own": own} if any(own.values()) else {}
