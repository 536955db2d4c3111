"""Make batches of pairs: a function of the settings, of the step, and of the renderings in the cache.

Legend: B pairs of a batch, K systems of a pair at most, n pixels per side.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple

import torch
from torch import Tensor

from coterie.core import rng
from coterie.objectives.views import image_view, luma
from coterie.pretrain.fractal_pairs import Canvas, PairSystems, choose_systems, compose
from coterie.pretrain.rendering_cache import Renderer, RenderingCache


@dataclass(frozen=True)
class Sizes:
    """The numbers and sizes of pairs, systems and renderings.

    Attributes:
        batch_size: B.
        num_systems: how many systems there are; a pass has one pair for each as its own system.
        image_size: n. channels: 3, or 1 for grey.
        max_objects: K.
        points, render_size: of a rendering; see `coterie.pretrain.fractals`.
        cached_systems, cached_renderings: how many systems the cache holds, and how many renderings of each.
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
    """A batch of pairs, before the changes that any image gets.

    Attributes:
        first, second: the views, [B, 3, n, n] from 0 to 1.
        systems: the numbers of the systems that both views of a pair show, [B, K]; -1 where it has fewer.
    """

    first: Tensor
    second: Tensor
    systems: Tensor


class PairBatches:
    """The batches of one run. They must be taken in order, since a batch may use renderings of an earlier one."""

    def __init__(self, sizes: Sizes, rng_seed: int) -> None:
        self.sizes, self.rng_seed = sizes, rng_seed
        self.canvas = Canvas(sizes.image_size, sizes.max_objects)
        capacity = min(sizes.cached_systems, sizes.num_systems)
        renderer = Renderer(rng_seed, sizes.points, sizes.render_size)
        self.cache = RenderingCache(renderer, capacity, sizes.cached_renderings)
        self._pass, self._order = -1, torch.empty(0)

    def pairs(self, step: int) -> Pairs:
        """Return the pairs of a step, counted from 0."""
        numbers = range(step * self.sizes.batch_size, (step + 1) * self.sizes.batch_size)
        own = self.cache.prepare([self._own_system(number) for number in numbers], numbers)
        key = rng.key(self.rng_seed, "pairs", step)
        systems = choose_systems(self.canvas, own, self.cache.num_systems, rng.fold(key, 0))
        first, second = (self._compose_view(systems, rng.fold(key, view)) for view in (1, 2))
        return Pairs(first, second, torch.where(systems.shown, self.cache.system[systems.slots], -1))

    def views(self, step: int) -> Tensor:
        """Return the views that a step trains on, with the changes that any image gets: [B, 2, C, n, n]."""
        pairs, key = self.pairs(step), rng.key(self.rng_seed, "views", step)
        changed = (image_view(x, rng.fold(key, k)) for k, x in enumerate(pairs[:2]))
        return torch.stack([x if self.sizes.channels == 3 else luma(x) for x in changed], 1)

    def _compose_view(self, systems: PairSystems, key: Tensor) -> Tensor:
        renderings = self.cache.pick_renderings(systems.slots, rng.uniform(rng.fold(key, 0), systems.slots.shape))
        return compose(self.canvas, renderings, systems.shown, rng.fold(key, 1))

    def _own_system(self, pair: int) -> int:
        """Return the own system of a pair: each system once in every pass, in another order in each pass."""
        turn, place = divmod(pair, self.sizes.num_systems)
        if turn != self._pass:
            order = rng.generator(self.rng_seed, "order of systems", turn)
            self._pass, self._order = turn, torch.randperm(self.sizes.num_systems, generator=order)
        return int(self._order[place])
