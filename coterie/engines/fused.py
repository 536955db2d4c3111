"""Updates of a compiled step that need no gradient in memory.

The gradient of a linear layer's weight is a product, dy' x: as large as the weight, from two factors as thin as a
batch. Plain descent looks at it once, in w + s dy' x. BLAS does both in one call that adds the product to w where it
lies. The gradient and a second weight are then never written down, which for a large layer takes longer than the
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
    """w [m, n] <- w + a b, with a [m, k] and b [k, n]."""
    torch.addmm(w, a, b, out=w)


# `torch.library.custom_op` would take 15 microseconds a call
_library = torch.library.Library("coterie", "FRAGMENT")  # type: ignore[no-untyped-call]
_library.define("add_product(Tensor(a!) w, Tensor a, Tensor b) -> ()")  # type: ignore[no-untyped-call]
_library.impl("add_product", add_product, "CompositeExplicitAutograd")  # type: ignore[no-untyped-call]
_library.impl("add_product", lambda w, a, b: None, "Meta")  # type: ignore[no-untyped-call]


def fuse_updates(trace: GraphModule, carry: Collection[Node]) -> None:
    """Let a trace add products to weights where it says w <- w + s (a b), with a number s.

    Args:
        trace: changed in place. It ends with copies into leaves of the carry, each from a clone made before the first.
        carry: the leaves' places in it.
    """
    graph = trace.graph
    for copy in list(graph.nodes):
        update = _update(copy, carry)
        if update is None:
            continue
        with graph.inserting_before(update.total):  # where nothing is written over yet
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


def _update(copy: Node, carry: Collection[Node]) -> _Update | None:
    """What a copy writes over a leaf of the carry, where it is such a sum and used nowhere else."""
    if copy.target is not aten.copy_.default or copy.args[0] not in carry:
        return None
    weight, clone = _arguments(copy)[:2]
    total = _only(clone, aten.clone.default)
    if total is None or _only(total, aten.addcmul.default) is not weight or total.kwargs:
        return None
    _, gradient, scale = _arguments(total)
    factors = _factors(gradient)
    if factors is None or scale.meta["val"].dim() or _seen_in(factors[1]) in carry:
        return None
    return _Update(total, weight, *factors, scale)


def _factors(gradient: Node) -> tuple[Node, Node] | None:
    """a and b of a gradient a b that is used nowhere else. Autograd transposes it, and then once more."""
    turned = False
    while source := _only(gradient, aten.t.default, aten.detach.default):
        turned ^= gradient.target is aten.t.default
        gradient = source
    if turned or _only(gradient, aten.mm.default) is None:
        return None
    a, b = _arguments(gradient)
    return a, b


def _only(node: Node, *targets: object) -> Node | None:
    """The first argument of a node that is one of these calls and used once."""
    return _arguments(node)[0] if node.target in targets and len(node.users) == 1 else None


def _arguments(node: Node) -> tuple[Node, ...]:
    return node.args  # type: ignore[return-value]


def _seen_in(node: Node) -> Node:
    """The tensor that a view looks into."""
    while node.target is operator.getitem or getattr(node.target, "is_view", False):
        node = _arguments(node)[0]
    return node
