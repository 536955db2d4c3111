"""The last renderings of some systems, from which pairs are put together.

A rendering is a function of (rng seed, system, the pair it was made for). So what has to be known to continue a run
that was stopped is which ones are held: they are rendered again.

Every second pair has its own system rendered anew, and so has one whose system is not there. A system's latest
renderings are kept, the oldest giving way; where there is no room for another system, one goes by chance, but none that
the batch itself needs.

Legend: B pairs of a batch, M systems, R renderings of each at most, s pixels of a side.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from coterie.core import rng
from coterie.core.tree import Tree
from coterie.pretrain.fractals import render
from coterie.pretrain.iterated_functions import jittered, systems

NOTHING = -1


@dataclass(frozen=True)
class Pictures:
    """How a system is drawn.

    Attributes:
        points: of the orbit.
        size: s.
    """

    rng_seed: int
    points: int
    size: int

    def rendered(self, index: Tensor, pair: Tensor) -> Tensor:
        """The systems numbered `index` [B], their parameters jittered, as drawn for `pair` [B]: grey [B, s, s]."""
        keys = rng.fold(rng.fold(rng.key(self.rng_seed, "rendering"), index), pair)
        moved = jittered(systems(self.rng_seed, index), rng.fold(keys, 0))
        return render(moved, rng.fold(keys, 1), self.points, self.size)


class Cache:
    """What is held, and how it changes from batch to batch."""

    def __init__(self, pictures: Pictures, systems: int, renderings: int) -> None:
        self.pictures = pictures
        self.system = torch.full([systems], NOTHING)  # [M]
        self.made = torch.full([renderings, systems], NOTHING)  # [R, M] the pair for which each was made
        self.count = torch.zeros(systems, dtype=torch.int64)  # [M] renderings that a slot's system has had
        self.grey = torch.empty(renderings, systems, pictures.size, pictures.size)  # memory is taken when it is used
        self._slots: dict[int, int] = {}

    @property
    def held(self) -> int:
        """How many systems there are; they fill the first slots."""
        return len(self._slots)

    def take(self, index: Sequence[int], pairs: Sequence[int]) -> Tensor:
        """Have a rendering of each system of `index` [B], made anew for every second of `pairs` [B]; the slots [B]."""
        needed, fresh = set(index), []
        for system, pair in zip(index, pairs, strict=True):
            if system not in self._slots:
                self._admit(system, pair, needed)
            elif pair % 2 == 0:
                continue
            fresh.append(self._place(system, pair))
        self._draw(torch.tensor(fresh).reshape(-1, 2))
        return torch.tensor([self._slots[system] for system in index])

    def _admit(self, system: int, pair: int, needed: set[int]) -> None:
        slot = self.held
        if slot == len(self.system):
            slot = self._given_up(pair, needed)
            del self._slots[int(self.system[slot])]
        self._slots[system] = slot
        self.system[slot], self.count[slot], self.made[:, slot] = system, 0, NOTHING

    def _given_up(self, pair: int, needed: set[int]) -> int:
        chance = rng.python(self.pictures.rng_seed, "evicted", pair)
        slots = (chance.randrange(len(self.system)) for _ in iter(int, 1))
        return next(slot for slot in slots if int(self.system[slot]) not in needed)

    def _place(self, system: int, pair: int) -> tuple[int, int]:
        """Where the system's next rendering goes."""
        slot = self._slots[system]
        row = int(self.count[slot]) % len(self.made)
        self.count[slot] += 1
        self.made[row, slot] = pair
        return row, slot

    def _draw(self, places: Tensor) -> None:
        """Render what `places` [F, 2] are to hold."""
        if len(places):
            rows, slots = torch.unique(places, dim=0).unbind(1)
            self.grey[rows, slots] = self.pictures.rendered(self.system[slots], self.made[rows, slots])

    def any_of(self, slots: Tensor, u: Tensor) -> Tensor:
        """One of the renderings in each slot, by u in [0, 1) of the same shape [...]: [..., s, s]."""
        number = self.count[slots].clamp(max=len(self.made))
        return self.grey[(u * number).long(), slots]

    def state(self) -> Tree:
        """What is held, without the pictures."""
        return {"system": self.system.clone(), "made": self.made.clone(), "count": self.count.clone()}

    def restore(self, state: Tree) -> None:
        """Hold what `state` says, all of it rendered again."""
        self.system, self.made, self.count = (state[name].clone() for name in ("system", "made", "count"))
        self._slots = {int(system): slot for slot, system in enumerate(self.system) if system != NOTHING}
        self._draw((self.made != NOTHING).nonzero())
