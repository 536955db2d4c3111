"""Learning from two views of an example, without labels: SimSiam, and MoCo v2.

    simsiam  z_k = projector(encoder(x_k)), p_k = predictor(z_k), for both views k
             loss -1/2 (cos(p_1, sg(z_2)) + cos(p_2, sg(z_1)))
    moco     key's encoder and head <- m key's + (1 - m) query's
             q = head(encoder(x_1)) / norm,  k = sg(key's head(key's encoder(x_2))) / norm
             loss: cross-entropy of q.k / T against q.queue / T; then k takes the place of the oldest in the queue

What they need besides the encoder's weights stands among these, under names that begin with "ssl:", so that whatever
trains, averages or saves weights need not know of it. Each view is a forward of its own, with its own batch statistics.

Departures from the papers: MoCo's keys are not shuffled between devices, for there is one; what BatchNorm keeps in the
encoder of keys is that encoder's own.

Chen, He: Exploring Simple Siamese Representation Learning, CVPR 2021, Algorithm 1. He, Fan, Wu, Xie, Girshick: Momentum
Contrast for Unsupervised Visual Representation Learning, CVPR 2020, Algorithm 1; Chen, Fan, Girshick, He: Improved
Baselines with Momentum Contrastive Learning, arXiv 2003.04297.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from coterie.core import rng
from coterie.core.algorithm import Logs
from coterie.core.errors import Mistake, require
from coterie.core.task import Encoder, Task, masked_sums
from coterie.core.tree import Tree
from coterie.models.functional import TrainingModule, initial_weights
from coterie.models.projection_heads import mlp_head, predictor, projector
from coterie.models.registry import build
from coterie.objectives import self_supervised_losses as losses

PREFIX, PROJECTOR, PREDICTOR = "ssl:", "ssl:projector.", "ssl:predictor."
KEY, QUEUE, PLACE = "ssl:key:", "ssl:queue", "ssl:queue.place"
SPREAD = "spread"
"""The log that shows a collapse; see `losses.spread`."""

Views = tuple[Tensor, Tensor]
"""Two views of the examples of a batch, [B, ...] each."""

Embed = Callable[[Tree, Tree, Tensor, Tensor | None, Tensor], tuple[Tensor, Tree]]
"""(params, buffers, x [B, ...], mask, key) -> [B, P] and the buffers after the forward."""


@dataclass(frozen=True)
class Method:
    """One way to learn from two views, for one architecture.

    Attributes:
        heads: (rng seed) -> what is trained and kept besides the encoder's weights: {"params", "buffers"}.
        begin: weights -> the weights, with what is made from them before the first step.
        gradient: (params, buffers, views, mask [B] or None, key []) -> the gradient of the batch's mean loss, the
            buffers after the step, and logs: "loss", "count", and `SPREAD` times the count.
    """

    heads: Callable[[int], Tree]
    begin: Callable[[Tree], Tree]
    gradient: Callable[[Tree, Tree, Views, Tensor | None, Tensor], tuple[Tree, Tree, Logs]]


def simsiam(task: Task, projection: int = 512, hidden: int = 128) -> Method:
    """SimSiam.

    Args:
        task: gives the encoder.
        projection: P.
        hidden: of the predictor's inner layer.

    Raises:
        Mistake: the model has no classifier to leave out.
    """
    width = _encoder(task).width
    project = _Part(PROJECTOR, projector, (width, projection))
    predict = _Part(PREDICTOR, predictor, (projection, hidden))
    embed = _embedding(task, project)

    def gradient(
        params: Tree, buffers: Tree, views: Views, mask: Tensor | None, key: Tensor
    ) -> tuple[Tree, Tree, Logs]:
        def objective(p: Tree) -> tuple[Tensor, tuple[Tree, Logs]]:
            z1, state = embed(p, buffers, views[0], mask, rng.fold(key, 0))
            z2, state = embed(p, state, views[1], mask, rng.fold(key, 1))
            p1, state = predict(p, state, z1, mask, key)
            p2, state = predict(p, state, z2, mask, key)
            loss, logs = _mean(losses.simsiam(p1, z1, p2, z2), z1, mask)
            return loss, (state, logs)

        grads, (after, logs) = task.differentiate(objective, params)
        return grads, after, logs

    return Method(lambda rng_seed: _begun(rng_seed, project, predict), lambda weights: weights, gradient)


def moco(
    task: Task, projection: int = 128, queue: int = 65536, key_momentum: float = 0.999, temperature: float = 0.2
) -> Method:
    """MoCo v2.

    Args:
        task: gives the encoder.
        projection: P.
        queue: Q, how many keys of earlier examples are kept, to be told apart from; at first they are random.
        key_momentum: m, how slowly the encoder of keys follows.
        temperature: T.

    Raises:
        Mistake: the model has no classifier to leave out.
    """
    head = _Part(PROJECTOR, mlp_head, (_encoder(task).width, projection))
    embed = _embedding(task, head)

    def gradient(
        params: Tree, buffers: Tree, views: Views, mask: Tensor | None, key: Tensor
    ) -> tuple[Tree, Tree, Logs]:
        theirs, statistics = _followed(params, buffers, key_momentum)
        k, statistics = embed(theirs, statistics, views[1], mask, rng.fold(key, 1))
        k = F.normalize(k.detach(), dim=-1)

        def objective(p: Tree) -> tuple[Tensor, tuple[Tree, Logs]]:
            q, state = embed(p, buffers, views[0], mask, rng.fold(key, 0))
            q = F.normalize(q, dim=-1)
            loss, logs = _mean(losses.info_nce(q, k, buffers[QUEUE], temperature), q, mask)
            return loss, (state, logs)

        grads, (after, logs) = task.differentiate(objective, params)
        keys, place = losses.enqueue(buffers[QUEUE], buffers[PLACE], k, mask)
        kept = {KEY + name: leaf for name, leaf in {**theirs, **statistics}.items()}
        return grads, {**after, **kept, QUEUE: keys, PLACE: place}, logs

    def heads(rng_seed: int) -> Tree:
        begun = _begun(rng_seed, head)
        keys = F.normalize(torch.randn(queue, projection, generator=rng.generator(rng_seed, "queue")), dim=-1)
        return {**begun, "buffers": {**begun["buffers"], QUEUE: keys, PLACE: torch.zeros((), dtype=torch.int64)}}

    return Method(heads, _with_key_encoder, gradient)


METHODS: dict[str, Callable[..., Method]] = {"simsiam": simsiam, "moco": moco}
"""Every method by the name that `loss` takes."""


RANGES: Mapping[str, tuple[Callable[[Any], bool], str]] = {
    "projection": (lambda size: size >= 1, "1 or more"),
    "hidden": (lambda size: size >= 1, "1 or more"),
    "queue": (lambda size: size >= 1, "1 or more"),
    "key_momentum": (lambda share: 0 <= share <= 1, "from 0 to 1"),
    "temperature": (lambda temperature: 0 < temperature < float("inf"), "a number above 0"),
}
"""What their arguments may be."""


def chosen(loss: str, given: Mapping[str, Any]) -> dict[str, Any]:
    """Those of a method's own arguments that are given; None counts as left out.

    Raises:
        Mistake: there is no such method, one belongs to the other, or a value is out of its range.
    """
    require("loss", loss, loss in METHODS, " or ".join(f'"{name}"' for name in METHODS))
    own = {name: value for name, value in given.items() if value is not None}
    for name, value in own.items():
        if name not in inspect.signature(METHODS[loss]).parameters:
            raise Mistake(f'the loss "{loss}" does not take it; leave it out', key=name, value=value)
    for name, (right, allowed) in RANGES.items():
        require(name, own.get(name), name not in own or right(own[name]), allowed)
    return own


class _Part:
    """A network behind the encoder, whose weights stand among the encoder's under names with a prefix."""

    def __init__(self, prefix: str, make: Callable[..., nn.Module], sizes: tuple[int, int]) -> None:
        self.prefix, self.make, self.sizes = prefix, lambda: make(*sizes), sizes
        self._forward = TrainingModule(make(*sizes)).forward()

    def __call__(self, params: Tree, buffers: Tree, x: Tensor, mask: Tensor | None, key: Tensor) -> tuple[Tensor, Tree]:
        outputs, after = self._forward(self._own(params), self._own(buffers), x, mask, key)
        return outputs, {**buffers, **self._named(after)}

    def _own(self, leaves: Tree) -> Tree:
        return {name.removeprefix(self.prefix): x for name, x in leaves.items() if name.startswith(self.prefix)}

    def _named(self, leaves: Tree) -> Tree:
        return {self.prefix + name: x for name, x in leaves.items()}

    def begun(self, rng_seed: int) -> Tree:
        """Its initial weights."""
        weights = initial_weights(build(self.make, [], None, rng_seed))
        return {kind: self._named(leaves) for kind, leaves in weights.items()}


def _begun(rng_seed: int, *parts: _Part) -> Tree:
    each = [part.begun(rng.number(rng_seed, part.prefix)) for part in parts]
    return {kind: {name: x for weights in each for name, x in weights[kind].items()} for kind in ("params", "buffers")}


def _encoder(task: Task) -> Encoder:
    if task.encoder is None:
        raise Mistake(
            "model: there is nothing to train before its last linear layer, which self-supervised learning leaves out; "
            "choose a model with more layers"
        )
    return task.encoder


def _embedding(task: Task, head: _Part) -> Embed:
    """The encoder, and a head behind it."""
    assert task.encoder is not None
    encode, width = task.encoder.forward(), task.encoder.width

    def embed(params: Tree, buffers: Tree, x: Tensor, mask: Tensor | None, key: Tensor) -> tuple[Tensor, Tree]:
        features, after = encode(_unprefixed(params), _unprefixed(buffers), x, mask, key)
        if features.shape[1:] != (width,):
            raise Mistake(
                f"model: without its last linear layer it gives {list(features.shape[1:])} numbers for an example, not "
                f"that layer's {width}; choose a model that ends in a linear layer"
            )
        return head(params, {**buffers, **after}, features, mask, key)

    return embed


def _unprefixed(leaves: Tree) -> Tree:
    """The model's own."""
    return {name: leaf for name, leaf in leaves.items() if not name.startswith(PREFIX)}


def _mean(each: Tensor, outputs: Tensor, mask: Tensor | None) -> tuple[Tensor, Logs]:
    """The mean loss over the real examples, and the logs."""
    total, count = masked_sums(lambda loss, _: (loss, torch.ones_like(loss)), each, None, mask)
    logs = {"loss": total.detach(), "count": count, SPREAD: losses.spread(outputs, mask) * count}
    return total / count.clamp(min=1), logs


def _with_key_encoder(weights: Tree) -> Tree:
    """The weights, and beside them those of an encoder of keys that begins as they do."""
    buffers = weights["buffers"]
    theirs = {
        KEY + name: x for name, x in {**weights["params"], **buffers}.items() if not name.startswith((KEY, QUEUE))
    }
    return {"params": weights["params"], "buffers": {**buffers, **theirs}}


def _followed(params: Tree, buffers: Tree, momentum: float) -> tuple[Tree, Tree]:
    """The parameters of the encoder of keys after they have followed, and its buffers."""
    theirs = {name.removeprefix(KEY): x for name, x in buffers.items() if name.startswith(KEY)}
    followed = {name: momentum * theirs[name] + (1 - momentum) * p.detach() for name, p in params.items()}
    return followed, {name: x for name, x in theirs.items() if name not in params}
