"""The server trusts no update: each is held against the shape that an honest one has before it counts."""

from __future__ import annotations

import math

import torch
from torch import Tensor

from coterie.core import tree
from coterie.core.tree import Tree


def problem(update: Tree, weight: float, template: Tree) -> str | None:
    """What is wrong with an update in a few words, or None.

    Checked: the leaves' names, types and shapes against `template`; that every number is finite; that the weight is a
        finite number above 0.
    """
    if not (math.isfinite(weight) and weight > 0):
        return f"weight {weight} is not a positive number"
    theirs, ours = dict(tree.items(update)), dict(tree.items(template))
    if theirs.keys() != ours.keys():
        differing = sorted(map(tree.pointer, theirs.keys() ^ ours.keys()))
        return f"leaves differ from the model's: {', '.join(differing[:3])}"
    for path, leaf in theirs.items():
        wrong = _wrong(leaf, ours[path])
        if wrong is not None:
            return f"{tree.pointer(path)} {wrong}"
    return None


def _wrong(leaf: Tensor, honest: Tensor) -> str | None:
    if leaf.dtype != honest.dtype:
        return f"is {leaf.dtype}, not {honest.dtype}"
    if leaf.shape != honest.shape:
        return f"has shape {list(leaf.shape)}, not {list(honest.shape)}"
    return None if finite(leaf) else "holds numbers that are not finite"


def finite(leaf: Tensor) -> bool:
    """Whether every entry is finite. A finite sum proves it in one pass; an overflowing one needs the second look."""
    return not leaf.is_floating_point() or math.isfinite(leaf.sum()) or bool(torch.isfinite(leaf).all())
