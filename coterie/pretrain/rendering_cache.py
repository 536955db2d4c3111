"""Hold the last renderings of some systems, from which pairs are composed.

A rendering is a function of (rng seed, system, the pair it was rendered for). So a stopped run can continue from the
numbers of systems and pairs alone: the renderings are made again.

Every second pair gets a new rendering of its own system, and so does a pair whose system is not in the cache. The
latest renderings of a system are kept; a new one replaces the oldest. Where there is no room for another system, a
random one is removed, but never one that the batch itself needs.

Legend: B pairs of a batch, M systems, R renderings of each at most, s pixels per side.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from coterie.core import rng
from coterie.core.tree import Tree
from coterie.pretrain.fractals import render
from coterie.pretrain.iterated_functions import draw_systems, jitter_systems

EMPTY = -1
"""Stands for a system or a pair where there is none."""


@dataclass(frozen=True)
class Renderer:
    """How a system is rendered.

    Attributes:
        rng_seed: the seed of the systems and of their renderings.
        points: of the orbit.
        size: s.
    """

    rng_seed: int
    points: int
    size: int

    def render(self, index: Tensor, pair: Tensor) -> Tensor:
        """Render the systems with the numbers `index` [B], jittered, for the pairs `pair` [B]: grey [B, s, s]."""
        keys = rng.fold(rng.fold(rng.key(self.rng_seed, "rendering"), index), pair)
        systems = jitter_systems(draw_systems(self.rng_seed, index), rng.fold(keys, 0))
        return render(systems, rng.fold(keys, 1), self.points, self.size)


class RenderingCache:
    """The last renderings of some systems; each system has a slot."""

    def __init__(self, renderer: Renderer, systems: int, renderings: int) -> None:
        self.renderer = renderer
        self.system = torch.full([systems], EMPTY)  # [M] the number of each slot's system
        self.pair = torch.full([renderings, systems], EMPTY)  # [R, M] the pair for which each was rendered
        self.count = torch.zeros(systems, dtype=torch.int64)  # [M] renderings that a slot's system has had
        self.grey = torch.empty(renderings, systems, renderer.size, renderer.size)  # its memory is taken when written
        self._slots: dict[int, int] = {}

    @property
    def num_systems(self) -> int:
        """How many systems are in the cache; they fill the first slots."""
        return len(self._slots)

    def prepare(self, index: Sequence[int], pairs: Sequence[int]) -> Tensor:
        """Return the slots [B] of the systems `index` [B], after rendering those that are new or whose pair is odd.

        A new system takes a slot, if necessary that of another. `pairs` [B] are the numbers of the pairs.
        """
        needed, fresh = set(index), []
        for system, pair in zip(index, pairs, strict=True):
            if system not in self._slots:
                self._add_system(system, pair, needed)
            elif pair % 2 == 0:
                continue
            fresh.append(self._reserve_place(system, pair))
        self._render_at(torch.tensor(fresh).reshape(-1, 2))
        return torch.tensor([self._slots[system] for system in index])

    def _add_system(self, system: int, pair: int, needed: set[int]) -> None:
        """Give a system a slot without renderings: a free one, or else that of a system outside `needed`."""
        slot = self.num_systems
        if slot == len(self.system):
            slot = self._choose_slot_to_empty(pair, needed)
            del self._slots[int(self.system[slot])]
        self._slots[system] = slot
        self.system[slot], self.count[slot], self.pair[:, slot] = system, 0, EMPTY

    def _choose_slot_to_empty(self, pair: int, needed: set[int]) -> int:
        """Return a random slot, which depends on `pair`, whose system is not in `needed`."""
        chance = rng.python_generator(self.renderer.rng_seed, "evicted", pair)
        slots = (chance.randrange(len(self.system)) for _ in iter(int, 1))
        return next(slot for slot in slots if int(self.system[slot]) not in needed)

    def _reserve_place(self, system: int, pair: int) -> tuple[int, int]:
        """Record that the system is rendered for `pair`, and return the row and slot of that rendering."""
        slot = self._slots[system]
        row = int(self.count[slot]) % len(self.pair)
        self.count[slot] += 1
        self.pair[row, slot] = pair
        return row, slot

    def _render_at(self, places: Tensor) -> None:
        """Render the systems that are recorded at the rows and slots `places` [F, 2], and store the pictures there."""
        if len(places):
            rows, slots = torch.unique(places, dim=0).unbind(1)
            self.grey[rows, slots] = self.renderer.render(self.system[slots], self.pair[rows, slots])

    def pick_renderings(self, slots: Tensor, u: Tensor) -> Tensor:
        """Return one rendering from each slot [...], chosen by u in [0, 1) of the same shape: [..., s, s]."""
        number = self.count[slots].clamp(max=len(self.pair))
        return self.grey[(u * number).long(), slots]

    def state(self) -> Tree:
        """Return which renderings the cache holds, without the pictures."""
        return {"system": self.system.clone(), "made": self.pair.clone(), "count": self.count.clone()}

    def restore(self, state: Tree) -> None:
        """Take over a `state`, and render all its pictures again."""
        self.system, self.pair, self.count = (state[name].clone() for name in ("system", "made", "count"))
        self._slots = {int(system): slot for slot, system in enumerate(self.system) if system != EMPTY}
        self._render_at((self.pair != EMPTY).nonzero())
