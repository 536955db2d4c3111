"""A codec for some parts of an update, while the rest travels unchanged."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from torch import Tensor

from coterie.core import rng, tree
from coterie.core.transforms import Transform
from coterie.core.tree import Tree


def on_subtrees(transform: Transform, paths: Sequence[tuple[str, ...]]) -> Transform:
    """Return a transform that applies `transform` to the subtrees at `paths`, to each by itself.

    An update that lacks one of them, as in a round that only measures, travels without it, and its state is kept for
    later. No path may lead into another one's subtree. Its `rounding` is 0, since what an algorithm's checks judge must
    lie outside these subtrees.
    """

    def encode(update: Tree, state: Tree, key: Tensor) -> tuple[Tree, Tree]:
        after = dict(state)
        for k, path in enumerate(paths):
            subtree, name = _at(update, path), tree.pointer(path)
            if subtree is None:
                continue
            before = state.get(name) or transform.init(subtree)
            payload, kept = transform.encode(subtree, before, rng.fold(key, k))
            update = _put(update, path, payload)
            after |= {name: kept} if kept else {}
        return update, after

    def decode(payload: Tree) -> Tree:
        for path in paths:
            encoded = _at(payload, path)
            payload = payload if encoded is None else _put(payload, path, transform.decode(encoded))
        return payload

    def problem(payload: Tree) -> str | None:
        for path in paths:
            encoded = _at(payload, path)
            wrong = None if encoded is None else transform.problem(encoded)
            if wrong is not None:
                return f"{tree.pointer(path)} {wrong}"
        return None

    return Transform(encode, decode, rounding=0.0, problem=problem, sparse=transform.sparse)


def _at(t: Mapping[str, Any], path: tuple[str, ...]) -> Any:
    """Return the subtree at a path; None if there is none."""
    name, *rest = path
    child = t.get(name)
    return _at(child, tuple(rest)) if rest and child is not None else child


def _put(t: Mapping[str, Any], path: tuple[str, ...], subtree: Tree) -> Tree:
    """Return the tree with this subtree at a path."""
    name, *rest = path
    return {**t, name: _put(t[name], tuple(rest), subtree) if rest else subtree}
