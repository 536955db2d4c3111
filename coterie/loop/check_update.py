"""The check of what arrives at the server: nothing counts before it has the form of an honest payload."""

from __future__ import annotations

import math

from torch import Tensor

from coterie.core import tree
from coterie.core.algorithm import ServerHalf
from coterie.core.tree import Tree


def problem(payload: Tree, weight: float, template: Tree) -> str | None:
    """Return what is wrong with a payload in a few words, or None.

    The leaves must have the names, types and shapes of `template`, every number must be finite, and the weight must be
    a finite number above 0.
    """
    if not (math.isfinite(weight) and weight > 0):
        return f"weight {weight} is not a positive number"
    leaves, honest = dict(tree.items(payload)), dict(tree.items(template))
    if leaves.keys() != honest.keys():
        differing = sorted(map(tree.pointer, leaves.keys() ^ honest.keys()))
        return f"leaves differ from the model's: {', '.join(differing[:3])}"
    for path, leaf in leaves.items():
        wrong = _leaf_problem(leaf, honest[path])
        if wrong is not None:
            return f"{tree.pointer(path)} {wrong}"
    return None


def part_problem(server: ServerHalf, update: Tree, rounding: float | None) -> str | None:
    """Return what is wrong with a decoded update whose form is right, in a few words, or None.

    Args:
        server: knows what an honest part satisfies; see `ServerHalf.checks`.
        update: as it was decoded.
        rounding: how far the codec may have moved a number from 0 to 1. None: unknown, and nothing can be checked.
    """
    if rounding is None:
        return None
    for part, check in server.checks.items():
        wrong = check(update[part], rounding)
        if wrong is not None:
            return f"{part} {wrong}"
    return None


def broken_leaf(after: Tree, before: Tree) -> str | None:
    """Return the name of a leaf with a number that is not finite and does not stand in `before`; None if all are good.

    What stands there already, such as the mask of a model, was not made by this round.
    """
    for path, leaf in tree.items(after):
        if not tree.is_finite(leaf) and not _stands_in(before, path, leaf):
            return tree.pointer(path)
    return None


def _stands_in(before: Tree, path: tuple[str, ...], leaf: Tensor) -> bool:
    """Return whether each entry of a leaf that is not finite has the same value in `before`."""
    old = dict(tree.items(before)).get(path)
    if old is None or old.shape != leaf.shape:
        return False
    odd = ~leaf.isfinite()
    a, b = leaf[odd], old.to(leaf.device)[odd]
    return bool(((a == b) | (a.isnan() & b.isnan())).all())


def _leaf_problem(leaf: Tensor, honest: Tensor) -> str | None:
    """Return what is wrong with a leaf, or None."""
    if leaf.dtype != honest.dtype:
        return f"is {leaf.dtype}, not {honest.dtype}"
    if leaf.shape != honest.shape:
        return f"has shape {list(leaf.shape)}, not {list(honest.shape)}"
    return None if tree.is_finite(leaf) else "holds numbers that are not finite"
