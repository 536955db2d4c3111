"""Arithmetic on trees: nested dicts whose leaves are tensors.

Models, updates, server state and client state are all trees, so the rest of the library never loops over parameter
names.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping
from typing import Any, TypeAlias

import torch
from torch import Tensor

Tree: TypeAlias = dict[str, Any]
"""A nested dict of tensors, or a single one. A leaf's place is its path of keys."""


def map(f: Callable[..., Tensor], tree: Tree, *others: Tree) -> Tree:
    """Apply f to every leaf; leaves of `others` at the same place are further arguments.

    >>> map(torch.add, {"a": {"b": torch.tensor(1)}}, {"a": {"b": torch.tensor(2)}})
    {'a': {'b': tensor(3)}}
    """
    if not isinstance(tree, dict):
        return f(tree, *others)  # a tree may be a single leaf
    return {name: map(f, child, *(o[name] for o in others)) for name, child in tree.items()}


def items(tree: Mapping[str, Any] | Tensor, path: tuple[str, ...] = ()) -> Iterator[tuple[tuple[str, ...], Tensor]]:
    """Yield (path, leaf) for every leaf, in the order of the dicts."""
    if isinstance(tree, Tensor):
        yield path, tree
    else:
        for name, child in tree.items():
            yield from items(child, (*path, name))


def leaves(tree: Mapping[str, Any] | Tensor) -> list[Tensor]:
    """Return every leaf, in the order of the dicts."""
    return [tree] if isinstance(tree, Tensor) else [leaf for child in tree.values() for leaf in leaves(child)]


def flatten(tree: Tree) -> dict[str, Tensor]:
    """Return the leaves in one flat dict, each under its path as a pointer.

    >>> flatten({"params": {"a/b": torch.tensor(1)}})
    {'params/a~1b': tensor(1)}
    """
    return {pointer(path): leaf for path, leaf in items(tree)}


def pointer(path: tuple[str, ...]) -> str:
    """Return a leaf's path as a JSON pointer without its first slash (RFC 6901)."""
    return "/".join(escape(name) for name in path)


def escape(name: str) -> str:
    """Return a key with "~" and "/" escaped as in a JSON pointer."""
    return name.replace("~", "~0").replace("/", "~1")


def structure(tree: Tree) -> dict[str, Any]:
    """Return the keys of a tree, in order, with None for every leaf: what `flatten` leaves out."""
    return {name: structure(child) if isinstance(child, dict) else None for name, child in tree.items()}


def unflatten(flat: Mapping[str, Tensor], structure: Mapping[str, Any], prefix: str = "") -> Tree:
    """Return the tree of this `structure` from its flat leaves; the inverse of `flatten`.

    >>> t = {"params": {"a/b": torch.tensor(1)}, "buffers": {}}
    >>> unflatten(flatten(t), structure(t))
    {'params': {'a/b': tensor(1)}, 'buffers': {}}

    Raises:
        KeyError: a leaf is missing.
    """
    return {
        name: flat[prefix + escape(name)] if child is None else unflatten(flat, child, f"{prefix}{escape(name)}/")
        for name, child in structure.items()
    }


def clone(tree: Tree) -> Tree:
    """Return a copy whose leaves share no memory with the tree or with one another."""
    return map(lambda x: x.detach().clone(), tree)


def zeros_like(tree: Tree) -> Tree:
    """Return zeros of the same shapes and types."""
    return map(torch.zeros_like, tree)


def add(a: Tree, b: Tree, scale: float | Tensor = 1.0) -> Tree:
    """Return a + scale * b, in one pass over memory where PyTorch can."""
    if isinstance(scale, Tensor):
        return map(lambda x, y: torch.addcmul(x, y, scale) if _same_kind(x, y, scale) else x + scale * y, a, b)
    return map(lambda x, y: torch.add(x, y, alpha=scale) if x.is_floating_point() else x + scale * y, a, b)


def _same_kind(x: Tensor, y: Tensor, scale: Tensor) -> bool:
    """Return whether all three have one type and one device."""
    return x.dtype == y.dtype == scale.dtype and x.device == y.device == scale.device


def sub(a: Tree, b: Tree) -> Tree:
    """Return a - b."""
    return map(torch.sub, a, b)


def scale(a: Tree, factor: float | Tensor) -> Tree:
    """Return factor * a."""
    return map(lambda x: x * factor, a)


def dot(a: Tree, b: Tree) -> Tensor:
    """Return the inner product over all leaves, shape []; 0 for trees without leaves. Leaves are paired by place."""
    products = leaves(map(lambda x, y: (x * y).sum(), a, b))
    return torch.stack(products).sum() if products else torch.zeros(())


def norm(a: Tree) -> Tensor:
    """Return the Euclidean norm over all leaves, shape []."""
    return dot(a, a).sqrt()


def is_finite(tree: Tree | Tensor) -> bool:
    """Return whether every entry of every leaf is finite. A finite sum proves it in one pass over a leaf.

    >>> is_finite({"a": torch.tensor([1.0, float("inf")])})
    False
    """
    return all(
        not leaf.is_floating_point() or math.isfinite(leaf.sum()) or bool(torch.isfinite(leaf).all())
        for leaf in leaves(tree)
    )


def nbytes(tree: Tree) -> int:
    """Return how many bytes the leaves hold, without names and framing."""
    return sum(x.numel() * x.element_size() for x in leaves(tree))


def floats(tree: Tree) -> Tree:
    """Return the tree without its integer leaves."""
    return {
        name: floats(child) if isinstance(child, dict) else child
        for name, child in tree.items()
        if isinstance(child, dict) or child.is_floating_point()
    }


def merge(base: Tree, changes: Tree) -> Tree:
    """Return `base` with some leaves replaced by those of `changes`, at the same places."""
    return {
        name: (
            child if name not in changes else merge(child, changes[name]) if isinstance(child, dict) else changes[name]
        )
        for name, child in base.items()
    }


def stack(trees: list[Tree]) -> Tree:
    """Stack n trees of the same structure into one tree of [n, ...] leaves."""
    return map(lambda *xs: torch.stack(xs), *trees)


def unstack(tree: Tree, n: int) -> list[Tree]:
    """Split a tree of [n, ...] leaves into n trees of [...] leaves, which are views."""
    return [map(lambda x, i=i: x[i], tree) for i in range(n)]
