"""Find the largest eigenvalue of the loss's Hessian: how sharply the loss bends at given weights.

    v <- H v / |H v|           from a random v; <v, H v> approaches the eigenvalue of largest size
    H v = d/dw <g(w), v>       the gradient of a gradient: the matrix is never built

Where that eigenvalue is negative, or two eigenvalues of the same size keep the search from settling, a second search
uses H + |H v| I. None of its eigenvalues is below 0, and its largest belongs to the largest of H.

The Hessian is that of the mean loss over a `Surface`'s examples with respect to the parameters; BatchNorm's statistics
count as constants. Nguyen et al. (Where to Begin?, ICLR 2023) compare it at random and at pre-trained weights.

Legend: d parameters.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

import torch
from torch import Tensor

from coterie.core import rng, tree
from coterie.core.tree import Tree
from coterie.probes.loss_surface import Surface

Product = Callable[[Tensor], Tensor]
"""v, float64 [d] -> H v, float64 [d]."""


class Eigenvalue(NamedTuple):
    """The result of a search.

    Attributes:
        value: <v, H v> at its end, with |v| = 1.
        residual: |H v - value v| / |value|. An eigenvalue lies within this share of the value.
        products: how many products H v were computed.
    """

    value: float
    residual: float
    products: int


def curvature(
    surface: Surface, weights: Tree, steps: int = 100, tolerance: float = 0.01, rng_seed: int = 0
) -> Eigenvalue:
    """Find the largest eigenvalue of the loss's Hessian at these weights.

    Args:
        surface: the model and its examples.
        weights: {"params", "buffers"}.
        steps: the most products H v in a search; each costs about two gradients.
        tolerance: the residual at which a search ends.
        rng_seed: draws the first v.
    """
    size = sum(leaf.numel() for leaf in tree.leaves(weights["params"]))
    start = torch.randn(size, generator=rng.generator(rng_seed, "curvature"), dtype=torch.float64)
    return top_eigenvalue(_hessian_product(surface, surface.prepare(weights)), start, steps, tolerance)


def top_eigenvalue(product: Product, start: Tensor, steps: int = 100, tolerance: float = 0.01) -> Eigenvalue:
    """Find the largest eigenvalue of a symmetric matrix H by iterating `product`, v -> H v, from the vector `start`.

    >>> found = top_eigenvalue(lambda v: v * torch.tensor([-5.0, 2.0]), torch.ones(2), tolerance=1e-6)
    >>> round(found.value, 6)
    2.0
    """
    first, size = _power_iteration(product, start, 0.0, steps, tolerance)
    if first.value >= 0 and first.residual <= tolerance:
        return first
    second, _ = _power_iteration(product, start, size, steps, tolerance)
    return second._replace(products=first.products + second.products)


def _power_iteration(
    product: Product, start: Tensor, shift: float, steps: int, tolerance: float
) -> tuple[Eigenvalue, float]:
    """Iterate with H + shift I; return the eigenvalue of H, and |H v| at the end."""
    v = start / start.norm()
    products = 0
    while True:
        image, products = product(v), products + 1
        value, size = float(v @ image), float(image.norm())
        residual = float((image - value * v).norm()) / abs(value) if value else float(size > 0)
        direction = image + shift * v
        if residual <= tolerance or products >= steps or not direction.any():
            return Eigenvalue(value, residual, products), size
        v = direction / direction.norm()


def _hessian_product(surface: Surface, weights: Tree) -> Product:
    """Return the function v -> H v, for the mean loss and the parameters."""
    with torch.enable_grad():
        params = tree.map(lambda p: p.detach().requires_grad_(), weights["params"])
    leaves = tree.leaves(params)

    def product(v: Tensor) -> Tensor:
        pieces = torch.split(v.to(leaves[0].device, leaves[0].dtype), [leaf.numel() for leaf in leaves])
        total, examples = torch.zeros_like(v), 0.0
        with torch.enable_grad():
            for loss, count in surface.sums({**weights, "params": params}):
                slopes = torch.autograd.grad(loss, leaves, create_graph=True, allow_unused=True, materialize_grads=True)
                along = torch.stack([(g.reshape(-1) * p).sum() for g, p in zip(slopes, pieces, strict=True)]).sum()
                examples += float(count)
                if along.requires_grad:  # else the loss is linear, and does not bend
                    bent = torch.autograd.grad(along, leaves, allow_unused=True, materialize_grads=True)
                    total += torch.cat([b.reshape(-1) for b in bent]).to(v.device, v.dtype)
        return total / examples

    return product
