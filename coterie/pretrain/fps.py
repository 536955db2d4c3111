"""FPS: pre-train an encoder on pairs of fractals, from which a federation then starts, without data.

    step t of T:  a batch of pairs of images that show the same fractals                       # `pair_batches`
                  SimSiam's loss on the two, or MoCo v2's                                      # `self_supervised`
                  v <- momentum v + (gradient + weight_decay w),  w <- w - lr_t v
    lr_t = lr batch_size / 256 (1 + cos(pi t / T)) / 2; SimSiam's predictor keeps lr batch_size / 256

The classifier is left out; a run that starts from the weights puts a new one behind the encoder.

Departures from the paper: the learning rate falls from step to step. The authors' falls from epoch to epoch; they train
for a hundred epochs of a million pairs, and a few minutes are a small part of one. Images are from 0 to 1, as those of
runs, where the authors subtract ImageNet's mean and divide by its deviation. With BatchNorm behind the first
convolution that is the same, except at the edges.

Chen, Tu, Li, Shen, Chao: On the Importance and Applicability of Pre-Training for Federated Learning, ICLR 2023, from
their code.
"""

from __future__ import annotations

import copy
import math
from dataclasses import dataclass, replace
from typing import Annotated, Any, Literal

import torch
from annotated_types import Ge
from torch import Tensor, nn

from coterie.algorithms.self_supervised import METHODS, PREDICTOR, PREFIX, Method, Views, method_arguments
from coterie.core import rng, tree
from coterie.core.algorithm import Logs
from coterie.core.errors import Mistake, require
from coterie.core.kinds import Count, Fraction, FractionBelowOne, NonNegative, Positive
from coterie.core.machine import memory_bytes
from coterie.core.tree import Tree
from coterie.engines.malloc import keep_freed_memory
from coterie.engines.mixed_precision import Precision, autocast_task
from coterie.models.functional import initial_weights, make_task
from coterie.objectives import cross_entropy
from coterie.pretrain.compiled_steps import CompiledSteps
from coterie.pretrain.pair_batches import PairBatches, Sizes

LARGE_PIXELS = 64
"""Images with a longer side are drawn like the authors' of 224 pixels, others like those of 32."""
MAX_LR = 1e30
"""A larger one, times the batch size, is more than float32 holds."""
LEARNING_RATES = {"simsiam": 0.05, "moco": 0.03}
"""The authors', for a batch of 256."""
CPU = torch.device("cpu")


@dataclass(frozen=True)
class FPS:
    """How an encoder is pre-trained.

    Attributes:
        loss: "simsiam" or "moco".
        steps: how many; or `minutes`, from which their number follows after the first steps are timed. Where both are
            given, as in a run's config.toml, `steps` holds.
        batch_size: pairs of a step.
        lr: for a batch of 256; 0.05 for simsiam and 0.03 for moco, unless given.
        momentum, weight_decay: as in `torch.optim.SGD`.
        num_systems: how many fractals there are.
        image_size: pixels of a side. channels: 3, or 1 for grey.
        max_objects: the most fractals of an image; 2 up to 64 pixels and 5 above, unless given.
        points: points of a rendering; 1,000 for 32 pixels, 100,000 for 224, and in proportion to the pixels otherwise.
        render_size: pixels of a rendering's side; `image_size` up to 64 pixels and half of it above, unless given.
        cached_systems: the number of fractals with renderings in the cache. cached_renderings: how many of each; 32 up
            to 64 pixels and 4 above, unless given.
        projection, hidden, queue, key_momentum, temperature: the loss's; see `coterie.algorithms.self_supervised`.
        interval: steps between two lines of the record.

    Raises:
        Mistake: a value is out of its range, or belongs to the other loss.
    """

    loss: Literal["simsiam", "moco"] = "simsiam"
    minutes: Positive | None = None
    steps: Count | None = None
    batch_size: Annotated[int, Ge(2)] = 256
    lr: Positive | None = None
    momentum: FractionBelowOne = 0.9
    weight_decay: NonNegative = 1e-4
    num_systems: int = 100_000
    image_size: Annotated[int, Ge(8)] = 32
    channels: Literal[1, 3] = 3
    max_objects: int | None = None
    points: Count | None = None
    render_size: Annotated[int, Ge(4)] | None = None
    cached_systems: int = 1024
    cached_renderings: Count | None = None
    projection: Count | None = None
    hidden: Count | None = None
    queue: Count | None = None
    key_momentum: Fraction | None = None
    temperature: Positive | None = None
    interval: Count = 10

    def __post_init__(self) -> None:
        _require_positive(self, "minutes", "batch_size", "lr", "interval", "points", "cached_renderings")
        require("lr", self.lr, self.lr is None or self.lr <= MAX_LR, f"above 0, and at most {MAX_LR:g}")
        require("steps", self.steps, self.steps is None or self.steps >= 1, "1 or more")
        if self.steps is None and self.minutes is None:
            raise Mistake("it must be given unless `minutes` is", key="steps")
        require("batch_size", self.batch_size, self.batch_size >= 2, "2 or more")
        require("momentum", self.momentum, 0 <= self.momentum < 1, "from 0 to below 1")
        require("weight_decay", self.weight_decay, 0 <= self.weight_decay < math.inf, "0 or more")
        require("image_size", self.image_size, self.image_size >= 8, "8 or more")
        require("render_size", self.render_size, self.render_size is None or self.render_size >= 4, "4 or more")
        objects = self.sizes.max_objects
        require("max_objects", objects, 2 <= objects <= self.batch_size, "2 or more, and at most `batch_size`")
        require("num_systems", self.num_systems, self.num_systems >= objects, f"{objects} or more")
        room = min(2 * self.batch_size, self.num_systems)
        require(
            "cached_systems",
            self.cached_systems,
            self.cached_systems >= room,
            f"{room} or more, for the systems of two batches",
        )
        _require_memory(self)
        queue = self.loss_options.get("queue")
        require("queue", queue, queue is None or queue >= self.batch_size, "`batch_size` or more")

    @property
    def loss_options(self) -> dict[str, Any]:
        """The arguments of the loss that are given."""
        names = ("projection", "hidden", "queue", "key_momentum", "temperature")
        return method_arguments(self.loss, {name: getattr(self, name) for name in names})

    @property
    def first_lr(self) -> float:
        """The learning rate of the first step."""
        return (self.resolve().lr or 0.0) * self.batch_size / 256

    def resolve(self) -> FPS:
        """Return the settings with the values that follow from others: the learning rate, and those of the images."""
        lr = LEARNING_RATES[self.loss] if self.lr is None else self.lr
        names = ("max_objects", "points", "render_size", "cached_renderings")
        return replace(self, lr=lr, **{name: getattr(self.sizes, name) for name in names})

    @property
    def sizes(self) -> Sizes:
        """The numbers and sizes of the images, with all defaults filled in."""
        size = self.image_size
        large = size > LARGE_PIXELS
        side = self.render_size or (size // 2 if large else size)
        per_pixel = 100_000 / 112**2 if large else 1_000 / 32**2
        return Sizes(
            self.batch_size,
            self.num_systems,
            size,
            self.channels,
            self.max_objects or (5 if large else 2),
            self.points or round(per_pixel * side**2),
            side,
            self.cached_systems,
            self.cached_renderings or (4 if large else 32),
        )


def _require_memory(settings: FPS) -> None:
    """Refuse numbers and sizes of images that this machine's memory does not hold.

    Raises:
        Mistake: they are such; the sentence names what to lower.
    """
    s, memory = settings.sizes, memory_bytes()
    image, rendering = 3 * s.image_size**2, s.render_size**2
    needs = {
        "num_systems": (8 * s.num_systems, "lower it"),
        "points": (64 * s.points, "lower it, or `render_size`"),
        "batch_size": (4 * s.batch_size * (8 * image + s.max_objects * rendering), "lower it, or `image_size`"),
        "cached_systems": (
            4 * min(s.cached_systems, s.num_systems) * s.cached_renderings * rendering,
            "lower it, or `cached_renderings` or `render_size`",
        ),
        "queue": (8 * (settings.queue or 0) * (settings.projection or 128), "lower it, or `projection`"),
    }
    for key, (needed, remedy) in needs.items():
        if needed > memory // 2:
            sizes = f"{needed / 2**30:,.0f} GiB of memory, and this machine has {memory / 2**30:,.0f}"
            raise Mistake(f"it would take {sizes}; {remedy}", key=key, value=getattr(s, key, settings.queue))


def _require_positive(settings: FPS, *names: str) -> None:
    for name in names:
        value = getattr(settings, name)
        require(name, value, value is None or 0 < value < math.inf, "above 0")


class Trainer:
    """The pre-training of an encoder, one step after another.

    Attributes:
        step: how many steps are done.
    """

    def __init__(
        self,
        settings: FPS,
        model: nn.Module,
        rng_seed: int,
        device: torch.device = CPU,
        compile: bool = False,
        precision: Precision = "full",
    ) -> None:
        """Prepare the training, before its first step.

        Args:
            settings: how to train, with a number of `steps`.
            model: its current weights are the start; it is never changed.
            rng_seed: everything random derives from it.
            device: where to train.
            compile: whether steps are compiled, which takes minutes and gives the same weights to rounding.
            precision: "bf16" computes the encoder's forwards by autocast; see `coterie.engines.mixed_precision`.

        Raises:
            Mistake: the model has no classifier to leave out.
        """
        keep_freed_memory()
        self.settings, self.rng_seed, self.device, self.step = settings, rng_seed, device, 0
        task = make_task(copy.deepcopy(model).to(device), loss=cross_entropy)
        task = autocast_task(task, device) if precision == "bf16" else task
        self.method: Method = METHODS[settings.loss](task, **settings.loss_options)
        assert task.encoder is not None, "the method would have refused it"
        self._classifier, self._frozen = task.encoder.head, task.frozen
        self.batches = PairBatches(settings.sizes, rng_seed)
        self._weights = self._to_device(self.method.prepare(self._with_heads(initial_weights(model))))
        self._velocity = tree.zeros_like(self._weights["params"])
        self._compiled: CompiledSteps | None = None
        if compile:
            lr, decay = settings.first_lr, settings.weight_decay
            self._compiled = CompiledSteps(self.method, settings.momentum, decay, lr, device)
            self._begin_compiled()

    def _with_heads(self, weights: Tree) -> Tree:
        """Return the weights with the method's new heads in place of the classifier."""
        heads = self.method.heads(rng.number(self.rng_seed, "heads"))
        return {
            kind: {name: x for name, x in weights[kind].items() if name not in self._classifier} | heads[kind]
            for kind in ("params", "buffers")
        }

    def _to_device(self, state: Tree) -> Tree:
        return tree.map(lambda x: x.to(self.device), state)

    def _begin_compiled(self) -> None:
        """Let compiled steps go on from the weights, of which they then own a copy."""
        if self._compiled is not None:
            self._compiled.begin(self._weights, self._velocity)

    def _take_compiled(self, steps: CompiledSteps, views: Views, key: Tensor) -> Logs:
        """Take one compiled step, and return its logs."""
        logs = steps.advance(views, key, self.lr())
        self._weights = {kind: steps.carry[kind] for kind in ("params", "buffers")}
        self._velocity = steps.carry["velocity"]
        self.step += 1
        return logs

    @torch.no_grad()
    def check_images(self, x: Tensor) -> None:
        """Run forward and backward on images [B, C, n, n] without a step, so that images that do not fit fail here."""
        x, key = x.to(self.device), rng.key("look").to(self.device)
        self.method.gradient(self._weights["params"], self._weights["buffers"], (x, x), None, key)

    @torch.no_grad()
    def advance(self) -> Logs:
        """Take one step, and return its logs; see `Method.gradient`."""
        x = self.batches.views(self.step).to(self.device)
        key = rng.key(self.rng_seed, "step", self.step).to(self.device)
        if self._compiled is not None:
            return self._take_compiled(self._compiled, (x[:, 0], x[:, 1]), key)
        params, buffers = self._weights["params"], self._weights["buffers"]
        grads, after, logs = self.method.gradient(params, buffers, (x[:, 0], x[:, 1]), None, key)
        grads = tree.add(grads, params, self.settings.weight_decay)
        self._velocity = tree.add(grads, self._velocity, self.settings.momentum)
        stepped = {name: torch.add(p, self._velocity[name], alpha=-self.lr(name)) for name, p in params.items()}
        self._weights = {"params": stepped, "buffers": after}
        self.step += 1
        return logs

    def lr(self, name: str = "") -> float:
        """Return the learning rate of the next step, for the parameter of that name."""
        steps = self.settings.steps or 1
        falling = 1.0 if name.startswith(PREDICTOR) else (1 + math.cos(math.pi * self.step / steps)) / 2
        return self.settings.first_lr * falling

    def state(self) -> Tree:
        """Return everything that the next step depends on, except the number of steps done."""
        trained = {"weights": self._weights, "velocity": self._velocity}
        kept = trained if self._compiled is None else tree.clone(trained)  # the next step writes over them
        return {**kept, "cache": self.batches.cache.state()}

    def restore(self, step: int, state: Tree) -> None:
        """Continue from a `state` that was taken after `step` steps."""
        self.step, self._weights = step, self._to_device(state["weights"])
        self._velocity = self._to_device(state["velocity"])
        self._begin_compiled()
        self.batches.cache.restore(state["cache"])

    def encoder_weights(self) -> dict[str, Tensor]:
        """Return the encoder's weights, by their names in the model's `state_dict`, without the classifier's."""
        both = {**self._frozen, **self._weights["params"], **self._weights["buffers"]}
        return {name: x for name, x in both.items() if not name.startswith(PREFIX)}
