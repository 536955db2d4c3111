"""Simulated faults of a real cohort: clients that do not answer, answer too late, or send garbage.

Which client suffers what is a function of (rng seed, round, client), like everything random here.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal, TypeAlias

import torch
from torch import Tensor

from coterie.core import rng, tree
from coterie.core.errors import Mistake, require
from coterie.core.kinds import Fraction
from coterie.core.tree import Tree

Fault: TypeAlias = Literal["drop", "straggle", "corrupt"]
REASONS: dict[Fault | None, str] = {"drop": "dropped out", "straggle": "missed the deadline"}


@dataclass(frozen=True)
class Faults:
    """The probabilities that a client of the cohort drops out, misses the round's deadline, or sends a corrupt payload.

    Raises:
        Mistake: one of them is outside [0, 1], or their sum is above 1.
    """

    drop: Fraction = 0.0
    straggle: Fraction = 0.0
    corrupt: Fraction = 0.0

    def __post_init__(self) -> None:
        for name in ("drop", "straggle", "corrupt"):
            require(name, getattr(self, name), 0 <= getattr(self, name) <= 1, "a probability, from 0 to 1")
        if self.drop + self.straggle + self.corrupt > 1 + 1e-9:
            raise Mistake(
                f"`drop` + `straggle` + `corrupt` = {self.drop + self.straggle + self.corrupt:g}: "
                "a client suffers one of them at most, so together they must not exceed 1"
            )

    def of(self, rng_seed: int, round: int, client: str) -> Fault | None:
        """Return what this client suffers in this round, or None."""
        if not (self.drop or self.straggle or self.corrupt):
            return None
        u = rng.python_generator(rng_seed, round, client, "faults").random()
        if u < self.drop:
            return "drop"
        if u < self.drop + self.straggle:
            return "straggle"
        return "corrupt" if u < self.drop + self.straggle + self.corrupt else None


def corrupt_payload(payload: Tree, weight: float, *purpose: object) -> tuple[Tree, float]:
    """Return a payload and its weight with one thing wrong, as a broken machine or a bad line might send it."""
    draw = rng.python_generator(*purpose, "corrupt")
    damage = draw.choice(("nan", "infinity", "shape", "dtype", "missing leaf", "weight"))
    if damage == "weight":
        return payload, draw.choice((0.0, -1.0, float("nan"), float("inf")))
    leaves = {path: leaf for path, leaf in tree.items(payload) if leaf.numel()}
    if not leaves:
        return {"garbage": torch.zeros(1)}, weight
    path = draw.choice(sorted(leaves))
    return _replace_leaf(payload, path, _damage(leaves[path], damage)), weight


def _damage(leaf: Tensor, damage: str) -> Tensor | None:
    """Return the leaf with this damage; None for a missing leaf."""
    if damage in ("nan", "infinity"):
        return torch.full_like(leaf, float(damage)) if leaf.is_floating_point() else leaf.reshape(-1)[:0]
    if damage == "shape":
        return torch.cat([leaf.reshape(-1), leaf.reshape(-1)[:1]])
    return leaf.to(torch.complex64) if damage == "dtype" else None


def _replace_leaf(t: Tree, path: tuple[str, ...], leaf: Tensor | None) -> Tree:
    """Return the tree with this leaf at `path`, or without a leaf there."""
    name, *rest = path
    child = _replace_leaf(t[name], tuple(rest), leaf) if rest else leaf
    changed = {**t, name: child}
    return {key: value for key, value in changed.items() if value is not None}
