"""Batches of pairs, one after another: a function of the settings, of the step, and of what the cache holds.

Legend: B pairs of a batch, K systems of a pair at most, n pixels of a side.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple

import torch
from torch import Tensor

from coterie.core import rng
from coterie.objectives.views import image_view, luma
from coterie.pretrain.fractal_pairs import Canvas, Drawn, compose, partners
from coterie.pretrain.rendering_cache import Cache, Pictures


@dataclass(frozen=True)
class Sizes:
    """How many, and how large.

    Attributes:
        batch_size: B.
        num_systems: how many systems there are; each is the own system of one pair in a pass over them.
        image_size: n. channels: 3, or 1 for grey.
        max_objects: K.
        points, render_size: of a rendering; see `coterie.pretrain.fractals`.
        cached_systems, cached_renderings: how many systems are held, and how many renderings of each.
    """

    batch_size: int
    num_systems: int
    image_size: int
    channels: int
    max_objects: int
    points: int
    render_size: int
    cached_systems: int
    cached_renderings: int


class Pairs(NamedTuple):
    """A batch of pairs before they are changed as any image is.

    Attributes:
        first, second: the views, [B, 3, n, n] from 0 to 1.
        systems: the numbers of the systems that both views of a pair show, [B, K]; -1 where it has fewer.
    """

    first: Tensor
    second: Tensor
    systems: Tensor


class Batches:
    """The batches of one run. They are taken in order, for a batch may show what an earlier one had rendered."""

    def __init__(self, sizes: Sizes, rng_seed: int) -> None:
        self.sizes, self.rng_seed = sizes, rng_seed
        self.canvas = Canvas(sizes.image_size, sizes.max_objects)
        kept = min(sizes.cached_systems, sizes.num_systems)
        self.cache = Cache(Pictures(rng_seed, sizes.points, sizes.render_size), kept, sizes.cached_renderings)
        self._pass, self._order = -1, torch.empty(0)

    def pairs(self, step: int) -> Pairs:
        """The pairs of a step, counted from 0."""
        numbers = range(step * self.sizes.batch_size, (step + 1) * self.sizes.batch_size)
        own = self.cache.take([self._system(number) for number in numbers], numbers)
        key = rng.key(self.rng_seed, "pairs", step)
        drawn = partners(self.canvas, own, self.cache.held, rng.fold(key, 0))
        first, second = (self._view(drawn, rng.fold(key, view)) for view in (1, 2))
        return Pairs(first, second, torch.where(drawn.shown, self.cache.system[drawn.slots], -1))

    def views(self, step: int) -> Tensor:
        """What is trained on: the step's views, changed as any image is, [B, 2, C, n, n]."""
        pairs, key = self.pairs(step), rng.key(self.rng_seed, "views", step)
        changed = (image_view(x, rng.fold(key, k)) for k, x in enumerate(pairs[:2]))
        return torch.stack([x if self.sizes.channels == 3 else luma(x) for x in changed], 1)

    def _view(self, drawn: Drawn, key: Tensor) -> Tensor:
        renderings = self.cache.any_of(drawn.slots, rng.uniform(rng.fold(key, 0), drawn.slots.shape))
        return compose(self.canvas, renderings, drawn.shown, rng.fold(key, 1))

    def _system(self, pair: int) -> int:
        """The own system of a pair: each system once in every pass, in an order that is the pass's own."""
        turn, place = divmod(pair, self.sizes.num_systems)
        if turn != self._pass:
            order = rng.generator(self.rng_seed, "order of systems", turn)
            self._pass, self._order = turn, torch.randperm(self.sizes.num_systems, generator=order)
        return int(self._order[place])
