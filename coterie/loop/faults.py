"""What a real cohort suffers, simulated: clients that fall silent, come too late, or send garbage.

Which client suffers what is a function of (rng seed, round, client), as everything random here.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal, TypeAlias

import torch
from torch import Tensor

from coterie.core import rng, tree
from coterie.core.errors import Mistake
from coterie.core.tree import Tree

Fault: TypeAlias = Literal["drop", "straggle", "corrupt"]
WHY: dict[Fault | None, str] = {"drop": "dropped out", "straggle": "missed the deadline"}


@dataclass(frozen=True)
class Faults:
    """The probabilities with which a client of the cohort drops out, misses the round's deadline, or sends a corrupt
    update.

    Raises:
        Mistake: one of them is outside [0, 1], or their sum is above 1.
    """

    drop: float = 0.0
    straggle: float = 0.0
    corrupt: float = 0.0

    def __post_init__(self) -> None:
        for name in ("drop", "straggle", "corrupt"):
            if not 0 <= getattr(self, name) <= 1:
                raise Mistake(f"faults.{name} = {getattr(self, name)}: it is a probability, from 0 to 1")
        if self.drop + self.straggle + self.corrupt > 1 + 1e-9:
            raise Mistake(
                f"faults.drop + faults.straggle + faults.corrupt = {self.drop + self.straggle + self.corrupt:g}: "
                "a client suffers one of them at most, so together they must not exceed 1"
            )

    def of(self, rng_seed: int, round: int, client: str) -> Fault | None:
        """What befalls this client in this round."""
        if not (self.drop or self.straggle or self.corrupt):
            return None
        u = rng.python_generator(rng_seed, round, client, "faults").random()
        if u < self.drop:
            return "drop"
        if u < self.drop + self.straggle:
            return "straggle"
        return "corrupt" if u < self.drop + self.straggle + self.corrupt else None


def corrupt_update(update: Tree, weight: float, *purpose: object) -> tuple[Tree, float]:
    """Return the update and its weight with one thing wrong, as a broken machine or a bad line might send it."""
    draw = rng.python_generator(*purpose, "corrupt")
    damage = draw.choice(("nan", "infinity", "shape", "dtype", "missing leaf", "weight"))
    if damage == "weight":
        return update, draw.choice((0.0, -1.0, float("nan"), float("inf")))
    leaves = {path: leaf for path, leaf in tree.items(update) if leaf.numel()}
    if not leaves:
        return {"garbage": torch.zeros(1)}, weight
    path = draw.choice(sorted(leaves))
    return _with(update, path, _damaged(leaves[path], damage)), weight


def _damaged(leaf: Tensor, damage: str) -> Tensor | None:
    """The leaf with this damage; None: it is missing."""
    if damage in ("nan", "infinity"):
        return torch.full_like(leaf, float(damage)) if leaf.is_floating_point() else leaf.reshape(-1)[:0]
    if damage == "shape":
        return torch.cat([leaf.reshape(-1), leaf.reshape(-1)[:1]])
    return leaf.to(torch.complex64) if damage == "dtype" else None


def _with(update: Tree, path: tuple[str, ...], leaf: Tensor | None) -> Tree:
    """The tree with this leaf at `path`, or with none."""
    name, *rest = path
    child = _with(update[name], tuple(rest), leaf) if rest else leaf
    changed = {**update, name: child}
    return {key: value for key, value in changed.items() if value is not None}
