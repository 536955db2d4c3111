"""The sum of updates, of which each has a bounded norm, whatever its client sends.

Legend: P parts of an update, C the bound, n the clients of a cohort as they are expected.
"""

from __future__ import annotations

import math
from collections.abc import Mapping

import torch

from coterie.core import tree
from coterie.core.tree import Tree

JOINTLY = ""
"""The group of the parts that are bounded together."""
SAFETY = 1 - 1e-12
"""On every factor, so that rounding leaves no norm above its bound."""


class BoundedSum:
    """Adds up updates after scaling each down to its bound; a bound on all parts together, or on each part.

    Args:
        bounds: C, or part -> its own C.

    Attributes:
        total: the sum, float64; None before the first update.
        surplus: sum_i (b_i - 1/2), where b_i is 1 if the update of client i was within its bound as it came.
    """

    def __init__(self, bounds: float | Mapping[str, float]) -> None:
        self.bounds = bounds
        self.total: Tree | None = None
        self.surplus = 0.0

    def add(self, update: Tree) -> None:
        """Add one update. One whose norm is not finite adds zeros."""
        bounded, within = bound(update, self.bounds)
        self.surplus += 0.5 if within else -0.5
        self.total = bounded if self.total is None else tree.map(torch.add, self.total, bounded)


def bound(update: Tree, bounds: float | Mapping[str, float]) -> tuple[Tree, bool]:
    """Return an update in float64, scaled so that no norm exceeds its bound, and whether none did.

    Norms are Euclidean, over all leaves of all parts together, or of each part where `bounds` has one for each.

    >>> bound({"a": torch.tensor([3.0]), "b": torch.tensor([4.0])}, 2.5)[0]["a"].round(decimals=6)
    tensor([1.5000], dtype=torch.float64)
    """
    wide = tree.map(lambda x: x.double(), update)
    if not isinstance(bounds, Mapping):
        factor = _factor(wide, bounds)
        return _scale(wide, factor), factor == 1
    factors = {part: _factor({part: wide[part]}, bounds[part]) for part in wide}
    return {part: _scale(wide[part], factor) for part, factor in factors.items()}, all(f == 1 for f in factors.values())


def _factor(update: Tree, limit: float) -> float:
    """Return by what a tree is scaled so that its norm is `limit` at most; 0 if it has no finite norm."""
    norm = float(tree.norm(update))
    if not math.isfinite(norm):
        return 0.0
    return 1.0 if norm <= limit else limit / norm * SAFETY


def _scale(update: Tree, factor: float) -> Tree:
    """Return the tree times a factor; zeros for 0, even of infinite numbers."""
    return update if factor == 1 else tree.scale(update, factor) if factor else tree.zeros_like(update)
