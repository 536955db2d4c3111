"""FPS: an encoder pre-trained on pairs of fractals, from which a federation then starts. No data, no privacy spent.

    step t of T:  a batch of pairs of images that show the same fractals                       # `batches`
                  SimSiam's loss on the two, or MoCo v2's                                      # `self_supervised`
                  v <- momentum v + (gradient + weight_decay w),  w <- w - lr_t v
    lr_t = lr batch_size / 256 (1 + cos(pi t / T)) / 2; SimSiam's predictor keeps lr batch_size / 256

The classifier is left out; whoever starts from the weights puts a new one behind the encoder.

Departures from the paper: the learning rate falls from step to step, where the authors' falls from epoch to epoch of a
million pairs, of which they take a hundred: a few minutes are a small part of one. Images are from 0 to 1, as runs get
theirs, where the authors subtract ImageNet's mean and divide by its deviation; with BatchNorm behind the first
convolution that is the same but at the edges.

Chen, Tu, Li, Shen, Chao: On the Importance and Applicability of Pre-Training for Federated Learning, ICLR 2023, from
their code.
"""

from __future__ import annotations

import copy
import math
from dataclasses import dataclass, replace
from typing import Any, Literal

import torch
from torch import Tensor, nn

from coterie.algorithms.self_supervised import METHODS, PREDICTOR, PREFIX, Method, chosen
from coterie.core import rng, tree
from coterie.core.algorithm import Logs
from coterie.core.errors import require
from coterie.core.tree import Tree
from coterie.engines.malloc import keep_freed_memory
from coterie.models.functional import functional, initial_weights
from coterie.objectives import cross_entropy
from coterie.pretrain.pair_batches import Batches, Sizes

LARGE = 64
"""Images with a longer side are drawn as the authors draw theirs of 224 pixels, others as those of 32."""
RATES = {"simsiam": 0.05, "moco": 0.03}
"""The authors' learning rates for a batch of 256."""
CPU = torch.device("cpu")


@dataclass(frozen=True)
class FPS:
    """How an encoder is pre-trained.

    Attributes:
        loss: "simsiam" or "moco".
        steps: how many; or `minutes`, from which their number is found by timing the first. Where both are given, as in
            a run's config.toml, `steps` counts.
        batch_size: pairs of a step.
        lr: for a batch of 256; 0.05 for simsiam and 0.03 for moco, unless given.
        momentum, weight_decay: as in `torch.optim.SGD`.
        num_systems: how many fractals there are.
        image_size: pixels of a side. channels: 3, or 1 for grey.
        max_objects: fractals of an image at most; 2 up to 64 pixels and 5 above, unless given.
        points: of a rendering; 1,000 for 32 pixels, 100,000 for 224, and in between as many a pixel.
        render_size: pixels of a rendering's side; `image_size` up to 64 pixels and half of it above, unless given.
        cached_systems: of how many fractals renderings are kept. cached_renderings: how many of each; 32 up to 64
            pixels and 4 above, unless given.
        projection, hidden, queue, key_momentum, temperature: of the loss; see `coterie.algorithms.self_supervised`.
        interval: steps between two lines of the record.

    Raises:
        Mistake: a value is out of its range, or belongs to the other loss.
    """

    loss: Literal["simsiam", "moco"] = "simsiam"
    minutes: float | None = None
    steps: int | None = None
    batch_size: int = 256
    lr: float | None = None
    momentum: float = 0.9
    weight_decay: float = 1e-4
    num_systems: int = 100_000
    image_size: int = 32
    channels: Literal[1, 3] = 3
    max_objects: int | None = None
    points: int | None = None
    render_size: int | None = None
    cached_systems: int = 1024
    cached_renderings: int | None = None
    projection: int | None = None
    hidden: int | None = None
    queue: int | None = None
    key_momentum: float | None = None
    temperature: float | None = None
    interval: int = 10

    def __post_init__(self) -> None:
        _positive(self, "minutes", "batch_size", "lr", "interval", "points", "cached_renderings")
        require("steps", self.steps, self.steps is None or self.steps >= 1, "1 or more")
        require("steps", self.steps, self.steps is not None or self.minutes is not None, "given, or else minutes")
        require("batch_size", self.batch_size, self.batch_size >= 2, "2 or more")
        require("momentum", self.momentum, 0 <= self.momentum < 1, "from 0 to below 1")
        require("weight_decay", self.weight_decay, 0 <= self.weight_decay < math.inf, "0 or more")
        require("image_size", self.image_size, self.image_size >= 8, "8 or more")
        require("render_size", self.render_size, self.render_size is None or self.render_size >= 4, "4 or more")
        objects = self.sizes.max_objects
        require("max_objects", objects, 2 <= objects <= self.batch_size, "2 or more, and at most batch_size")
        require("num_systems", self.num_systems, self.num_systems >= objects, f"{objects} or more")
        room = min(2 * self.batch_size, self.num_systems)
        require("cached_systems", self.cached_systems, self.cached_systems >= room, f"{room} or more: two batches' own")
        queue = self.options.get("queue")
        require("queue", queue, queue is None or queue >= self.batch_size, "batch_size or more")

    @property
    def options(self) -> dict[str, Any]:
        """The arguments of the loss that are given."""
        names = ("projection", "hidden", "queue", "key_momentum", "temperature")
        return chosen(self.loss, {name: getattr(self, name) for name in names})

    @property
    def rate(self) -> float:
        """The learning rate of the first step."""
        return (self.resolved().lr or 0.0) * self.batch_size / 256

    def resolved(self) -> FPS:
        """The settings with what follows from others filled in: the learning rate, and what an image is made of."""
        lr = RATES[self.loss] if self.lr is None else self.lr
        drawn = {
            name: getattr(self.sizes, name) for name in ("max_objects", "points", "render_size", "cached_renderings")
        }
        return replace(self, lr=lr, **drawn)

    @property
    def sizes(self) -> Sizes:
        """What is drawn, with nothing left open."""
        size = self.image_size
        large = size > LARGE
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


def _positive(settings: FPS, *names: str) -> None:
    for name in names:
        value = getattr(settings, name)
        require(name, value, value is None or 0 < value < math.inf, "above 0")


class Trainer:
    """An encoder's pre-training as far as it has come.

    Attributes:
        step: how many steps are done.
    """

    def __init__(self, settings: FPS, model: nn.Module, rng_seed: int, device: torch.device = CPU) -> None:
        """Before the first step.

        Args:
            settings: `steps` among them.
            model: its current weights are the start; it is never touched.
            rng_seed: everything random derives from it.

        Raises:
            Mistake: the model has no classifier to leave out.
        """
        keep_freed_memory()
        self.settings, self.rng_seed, self.device, self.step = settings, rng_seed, device, 0
        task = functional(copy.deepcopy(model).to(device), loss=cross_entropy)
        self.method: Method = METHODS[settings.loss](task, **settings.options)
        assert task.encoder is not None, "the method would have refused it"
        self._classifier, self._frozen = task.encoder.head, task.frozen
        self.batches = Batches(settings.sizes, rng_seed)
        self._weights = self._placed(self.method.begin(self._with_heads(initial_weights(model))))
        self._velocity = tree.zeros_like(self._weights["params"])

    def _with_heads(self, weights: Tree) -> Tree:
        heads = self.method.heads(rng.number(self.rng_seed, "heads"))
        return {
            kind: {name: x for name, x in weights[kind].items() if name not in self._classifier} | heads[kind]
            for kind in ("params", "buffers")
        }

    def _placed(self, state: Tree) -> Tree:
        return tree.map(lambda x: x.to(self.device), state)

    @torch.no_grad()
    def look_at(self, x: Tensor) -> None:
        """A step's forward and backward for images [B, C, n, n], without taking it: what does not fit fails here."""
        x, key = x.to(self.device), rng.key("look").to(self.device)
        self.method.gradient(self._weights["params"], self._weights["buffers"], (x, x), None, key)

    @torch.no_grad()
    def advance(self) -> Logs:
        """One step; its logs, see `Method.gradient`."""
        x = self.batches.views(self.step).to(self.device)
        key = rng.key(self.rng_seed, "step", self.step).to(self.device)
        params, buffers = self._weights["params"], self._weights["buffers"]
        grads, after, logs = self.method.gradient(params, buffers, (x[:, 0], x[:, 1]), None, key)
        grads = tree.add(grads, params, self.settings.weight_decay)
        self._velocity = tree.add(grads, self._velocity, self.settings.momentum)
        moved = {name: torch.add(p, self._velocity[name], alpha=-self.lr(name)) for name, p in params.items()}
        self._weights = {"params": moved, "buffers": after}
        self.step += 1
        return logs

    def lr(self, name: str = "") -> float:
        """The learning rate of the next step, for the parameter of that name."""
        steps = self.settings.steps or 1
        falling = 1.0 if name.startswith(PREDICTOR) else (1 + math.cos(math.pi * self.step / steps)) / 2
        return self.settings.rate * falling

    def state(self) -> Tree:
        """Everything that the next step depends on, but for the number of steps done."""
        return {"weights": self._weights, "velocity": self._velocity, "cache": self.batches.cache.state()}

    def restore(self, step: int, state: Tree) -> None:
        """Stand where `state` was taken, after `step` steps."""
        self.step, self._weights = step, self._placed(state["weights"])
        self._velocity = self._placed(state["velocity"])
        self.batches.cache.restore(state["cache"])

    def encoder(self) -> dict[str, Tensor]:
        """The encoder: its weights by their names in the model's `state_dict`, without the classifier's."""
        both = {**self._frozen, **self._weights["params"], **self._weights["buffers"]}
        return {name: x for name, x in both.items() if not name.startswith(PREFIX)}
