"""Learning from two views of an example, without labels: SimSiam, and MoCo v2.

    simsiam  z_k = projector(encoder(x_k)), p_k = predictor(z_k), for both views k
             loss -1/2 (cos(p_1, sg(z_2)) + cos(p_2, sg(z_1)))
    moco     key's encoder and head <- m key's + (1 - m) query's
             q = head(encoder(x_1)) / norm,  k = sg(key's head(key's encoder(x_2))) / norm
             loss: cross-entropy of q.k / T against q.queue / T; then k takes the place of the oldest in the queue

Their further weights stand beside the encoder's, under names that begin with "ssl:", so that code that trains, averages
or saves weights treats them like any others. Each view is a forward of its own, with its own batch statistics.

Departures from the papers: MoCo's keys are not shuffled between devices, since there is only one device; BatchNorm
layers in the encoder of keys have statistics of their own.

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
from coterie.core.task import Encoder, Task, masked_sums, mean_of_sums
from coterie.core.tree import Tree
from coterie.models.functional import TrainingModule, initial_weights
from coterie.models.limited_memory import LimitedMemory, TooLarge
from coterie.models.projection_heads import mlp_head, predictor, projector
from coterie.models.registry import build
from coterie.objectives import self_supervised_losses as losses

PREFIX, PROJECTOR, PREDICTOR = "ssl:", "ssl:projector.", "ssl:predictor."
KEY, QUEUE, PLACE = "ssl:key:", "ssl:queue", "ssl:queue.place"
SPREAD = "spread"
"""The log that shows a collapse; see `losses.spread`."""

Views = tuple[Tensor, Tensor]
"""Two views of a batch's examples, [B, ...] each."""

Embed = Callable[[Tree, Tree, Tensor, Tensor | None, Tensor], tuple[Tensor, Tree]]
"""(params, buffers, x [B, ...], mask, key) -> [B, P] and the buffers after the forward."""


@dataclass(frozen=True)
class Method:
    """A way to learn from two views, for one architecture.

    Attributes:
        heads: (rng seed) -> the initial weights besides the encoder's: {"params", "buffers"}.
        prepare: weights -> the weights for a first step, for MoCo with a copy as the encoder of keys.
        gradient: (params, buffers, views, mask [B] or None, key []) -> the gradient of the batch's mean loss, the
            buffers after the step, and logs: "loss", "count", and `SPREAD` times the count.
    """

    heads: Callable[[int], Tree]
    prepare: Callable[[Tree], Tree]
    gradient: Callable[[Tree, Tree, Views, Tensor | None, Tensor], tuple[Tree, Tree, Logs]]


def simsiam(task: Task, projection: int = 512, hidden: int = 128) -> Method:
    """Return SimSiam: each view's prediction is compared with the other view's projection.

    Args:
        task: its encoder is trained.
        projection: P, the width of the projections.
        hidden: the width of the predictor's inner layer.

    Raises:
        Mistake: the model has no layer before its classifier.
    """
    width = _require_encoder(task).width
    project = _Head(PROJECTOR, projector, (width, projection))
    predict = _Head(PREDICTOR, predictor, (projection, hidden))
    embed = _embedding(task, project)

    def gradient(
        params: Tree, buffers: Tree, views: Views, mask: Tensor | None, key: Tensor
    ) -> tuple[Tree, Tree, Logs]:
        def objective(p: Tree) -> tuple[Tensor, tuple[Tree, Logs]]:
            z1, state = embed(p, buffers, views[0], mask, rng.fold(key, 0))
            z2, state = embed(p, state, views[1], mask, rng.fold(key, 1))
            p1, state = predict(p, state, z1, mask, key)
            p2, state = predict(p, state, z2, mask, key)
            loss, logs = _mean_loss(losses.simsiam(p1, z1, p2, z2), z1, mask)
            return loss, (state, logs)

        grads, (after, logs) = task.differentiate(objective, params)
        return grads, after, logs

    return Method(lambda rng_seed: _initial_heads(rng_seed, project, predict), lambda weights: weights, gradient)


def moco(
    task: Task, projection: int = 128, queue: int = 65536, key_momentum: float = 0.999, temperature: float = 0.2
) -> Method:
    """Return MoCo v2: a view is told from a queue of earlier examples by the key of the other view.

    Args:
        task: its encoder is trained.
        projection: P, the width of the projections.
        queue: Q, the number of earlier examples' keys that serve as negatives; at first they are random.
        key_momentum: m, how slowly the encoder of keys follows the trained one.
        temperature: T.

    Raises:
        Mistake: the model has no layer before its classifier.
    """
    head = _Head(PROJECTOR, mlp_head, (_require_encoder(task).width, projection))
    embed = _embedding(task, head)

    def gradient(
        params: Tree, buffers: Tree, views: Views, mask: Tensor | None, key: Tensor
    ) -> tuple[Tree, Tree, Logs]:
        """Return the gradient, the buffers with the encoder of keys moved and the queue extended, and logs."""
        key_params, key_buffers = _move_key_encoder(params, buffers, key_momentum)
        k, key_buffers = embed(key_params, key_buffers, views[1], mask, rng.fold(key, 1))
        k = F.normalize(k.detach(), dim=-1)

        def objective(p: Tree) -> tuple[Tensor, tuple[Tree, Logs]]:
            q, state = embed(p, buffers, views[0], mask, rng.fold(key, 0))
            q = F.normalize(q, dim=-1)
            loss, logs = _mean_loss(losses.info_nce(q, k, buffers[QUEUE], temperature), q, mask)
            return loss, (state, logs)

        grads, (after, logs) = task.differentiate(objective, params)
        keys, place = losses.enqueue(buffers[QUEUE], buffers[PLACE], k, mask)
        key_encoder = {KEY + name: leaf for name, leaf in {**key_params, **key_buffers}.items()}
        return grads, {**after, **key_encoder, QUEUE: keys, PLACE: place}, logs

    def heads(rng_seed: int) -> Tree:
        """Return the head's initial weights, with a queue of random keys and the place 0 in it."""
        initial = _initial_heads(rng_seed, head)
        keys = F.normalize(torch.randn(queue, projection, generator=rng.generator(rng_seed, "queue")), dim=-1)
        return {**initial, "buffers": {**initial["buffers"], QUEUE: keys, PLACE: torch.zeros((), dtype=torch.int64)}}

    return Method(heads, _add_key_encoder, gradient)


METHODS: dict[str, Callable[..., Method]] = {"simsiam": simsiam, "moco": moco}
"""Every method by the name that `loss` takes."""


RANGES: Mapping[str, tuple[Callable[[Any], bool], str]] = {
    "projection": (lambda size: size >= 1, "1 or more"),
    "hidden": (lambda size: size >= 1, "1 or more"),
    "queue": (lambda size: size >= 1, "1 or more"),
    "key_momentum": (lambda share: 0 <= share <= 1, "from 0 to 1"),
    "temperature": (lambda temperature: 0 < temperature < float("inf"), "a number above 0"),
}
"""Argument of a method -> the test of its range, and what is allowed."""


def method_arguments(loss: str, given: Mapping[str, Any]) -> dict[str, Any]:
    """Return the arguments that are not None; refuse those that the method does not take or allow.

    Raises:
        Mistake: there is no such method, an argument belongs to the other one, or a value is out of its range.
    """
    require("loss", loss, loss in METHODS, " or ".join(f'"{name}"' for name in METHODS))
    own = {name: value for name, value in given.items() if value is not None}
    for name, value in own.items():
        if name not in inspect.signature(METHODS[loss]).parameters:
            raise Mistake(f'the loss "{loss}" does not take it; leave it out', key=name, value=value)
    for name, (right, allowed) in RANGES.items():
        require(name, own.get(name), name not in own or right(own[name]), allowed)
    return own


class _Head:
    """A network behind the encoder, whose weights have names with a prefix.

    Raises:
        Mistake: it is too large for this machine.
    """

    def __init__(self, prefix: str, make: Callable[..., nn.Module], sizes: tuple[int, int]) -> None:
        self.prefix, self.make, self.sizes = prefix, lambda: make(*sizes), sizes
        try:
            with LimitedMemory():
                self._forward = TrainingModule(make(*sizes)).forward()
        except TooLarge as error:
            raise Mistake(f"the heads are too large ({error}); lower `projection` or `hidden`") from error

    def __call__(self, params: Tree, buffers: Tree, x: Tensor, mask: Tensor | None, key: Tensor) -> tuple[Tensor, Tree]:
        """Return the head's outputs, and all buffers after its forward; its weights are found by their prefix."""
        outputs, after = self._forward(self._select(params), self._select(buffers), x, mask, key)
        return outputs, {**buffers, **self._add_prefix(after)}

    def _select(self, leaves: Tree) -> Tree:
        """Return the leaves of this head, their names without its prefix."""
        return {name.removeprefix(self.prefix): x for name, x in leaves.items() if name.startswith(self.prefix)}

    def _add_prefix(self, leaves: Tree) -> Tree:
        return {self.prefix + name: x for name, x in leaves.items()}

    def initial_weights(self, rng_seed: int) -> Tree:
        """Return the initial weights of this head, under names with its prefix."""
        weights = initial_weights(build(self.make, [], None, rng_seed))
        return {kind: self._add_prefix(leaves) for kind, leaves in weights.items()}


def _initial_heads(rng_seed: int, *heads: _Head) -> Tree:
    """Return the initial weights of all heads as one {"params", "buffers"}."""
    each = [head.initial_weights(rng.number(rng_seed, head.prefix)) for head in heads]
    return {kind: {name: x for weights in each for name, x in weights[kind].items()} for kind in ("params", "buffers")}


def _require_encoder(task: Task) -> Encoder:
    """Return the task's encoder; refuse a model that has none."""
    if task.encoder is None:
        raise Mistake(
            "model: it has nothing to train before its last linear layer, which self-supervised learning leaves out; "
            "choose a model with more layers"
        )
    return task.encoder


def _embedding(task: Task, head: _Head) -> Embed:
    """Return the forward of the encoder and a head behind it."""
    assert task.encoder is not None
    encode, width = task.encoder.forward(), task.encoder.width

    def embed(params: Tree, buffers: Tree, x: Tensor, mask: Tensor | None, key: Tensor) -> tuple[Tensor, Tree]:
        """Return the head's outputs and the buffers; refuse features of another width than the encoder's."""
        features, after = encode(_model_leaves(params), _model_leaves(buffers), x, mask, key)
        if features.shape[1:] != (width,):
            raise Mistake(
                f"model: without its last linear layer its outputs have the shape {list(features.shape[1:])}, but that "
                f"layer takes {width} numbers; choose a model that ends in a linear layer"
            )
        return head(params, {**buffers, **after}, features, mask, key)

    return embed


def _model_leaves(leaves: Tree) -> Tree:
    """Return the leaves of the model itself, without heads, queue and the encoder of keys."""
    return {name: leaf for name, leaf in leaves.items() if not name.startswith(PREFIX)}


def _mean_loss(each: Tensor, outputs: Tensor, mask: Tensor | None) -> tuple[Tensor, Logs]:
    """Return the mean of the losses `each` [B] over the real examples, and the logs, with the outputs' spread."""
    total, count = masked_sums(lambda loss, _: (loss, torch.ones_like(loss)), each, None, mask)
    logs = {"loss": total.detach(), "count": count, SPREAD: losses.spread(outputs, mask) * count}
    return mean_of_sums(total, count), logs


def _add_key_encoder(weights: Tree) -> Tree:
    """Return the weights together with an encoder of keys that is a copy of them."""
    buffers = weights["buffers"]
    copies = {
        KEY + name: x for name, x in {**weights["params"], **buffers}.items() if not name.startswith((KEY, QUEUE))
    }
    return {"params": weights["params"], "buffers": {**buffers, **copies}}


def _move_key_encoder(params: Tree, buffers: Tree, momentum: float) -> tuple[Tree, Tree]:
    """Return the parameters of the encoder of keys, moved towards `params`, and its buffers."""
    old = {name.removeprefix(KEY): x for name, x in buffers.items() if name.startswith(KEY)}
    followed = {name: momentum * old[name] + (1 - momentum) * p.detach() for name, p in params.items()}
    return followed, {name: x for name, x in old.items() if name not in params}
