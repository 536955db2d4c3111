"""Fuse updates of a compiled step, so that no gradient is written to memory.

The gradient of a linear layer's weight is a product dy' x. It is as large as the weight, and its two factors are as
thin as a batch. Plain descent reads it once, in w + s dy' x. BLAS does both in one call, which adds the product to w in
place. The gradient and a second weight are then never written to memory, which for a large layer takes longer than the
arithmetic.
"""

from __future__ import annotations

import operator
from collections.abc import Collection
from typing import NamedTuple

import torch
from torch import Tensor
from torch.fx import GraphModule, Node

aten = torch.ops.aten


def add_product(w: Tensor, a: Tensor, b: Tensor) -> None:
    """Add a product to a weight in place: w [m, n] <- w + a b, with a [m, k] and b [k, n]."""
    torch.addmm(w, a, b, out=w)


# `torch.library.custom_op` would take 15 microseconds a call
_library = torch.library.Library("coterie", "FRAGMENT")  # type: ignore[no-untyped-call]
_library.define("add_product(Tensor(a!) w, Tensor a, Tensor b) -> ()")  # type: ignore[no-untyped-call]
_library.impl("add_product", add_product, "CompositeExplicitAutograd")  # type: ignore[no-untyped-call]
_library.impl("add_product", lambda w, a, b: None, "Meta")  # type: ignore[no-untyped-call]


def fuse_updates(trace: GraphModule, carry: Collection[Node]) -> None:
    """Replace w <- w + s (a b) in a trace, with a number s, by the addition of a product in place.

    Args:
        trace: changed in place. It ends with copies into leaves of the carry, each from a clone made before the first.
        carry: the placeholders of the carry's leaves.
    """
    graph = trace.graph
    for copy in list(graph.nodes):
        update = _find_update(copy, carry)
        if update is None:
            continue
        with graph.inserting_before(update.total):  # before anything is written over
            scaled = graph.call_function(aten.mul.Tensor, (update.a, update.scale))
        with graph.inserting_before(copy):
            graph.call_function(torch.ops.coterie.add_product.default, (update.weight, scaled, update.b))
        graph.erase_node(copy)
    graph.eliminate_dead_code()
    trace.recompile()


class _Update(NamedTuple):
    """total = weight + scale a b."""

    total: Node
    weight: Node
    a: Node
    b: Node
    scale: Node


def _find_update(copy: Node, carry: Collection[Node]) -> _Update | None:
    """Return the sum that a copy writes over a leaf of the carry; None if it is another value or used elsewhere."""
    if copy.target is not aten.copy_.default or copy.args[0] not in carry:
        return None
    weight, clone = _arguments(copy)[:2]
    total = _source_of(clone, aten.clone.default)
    if total is None or _source_of(total, aten.addcmul.default) is not weight or total.kwargs:
        return None
    _, gradient, scale = _arguments(total)
    factors = _factors(gradient)
    if factors is None or scale.meta["val"].dim() or _base_tensor(factors[1]) in carry:
        return None
    return _Update(total, weight, *factors, scale)


def _factors(gradient: Node) -> tuple[Node, Node] | None:
    """Return a and b of a gradient a b that is used only here, or None. Autograd transposes it twice."""
    transposed = False
    while source := _source_of(gradient, aten.t.default, aten.detach.default):
        transposed ^= gradient.target is aten.t.default
        gradient = source
    if transposed or _source_of(gradient, aten.mm.default) is None:
        return None
    a, b = _arguments(gradient)
    return a, b


def _source_of(node: Node, *targets: object) -> Node | None:
    """Return the first argument of a node that is one of these calls and is used once; otherwise None."""
    return _arguments(node)[0] if node.target in targets and len(node.users) == 1 else None


def _arguments(node: Node) -> tuple[Node, ...]:
    return node.args  # type: ignore[return-value]


def _base_tensor(node: Node) -> Node:
    """Return the tensor that a view belongs to."""
    while node.target is operator.getitem or getattr(node.target, "is_view", False):
        node = _arguments(node)[0]
    return node
