"""Centred gradients: filters whose mean does not move, since a BatchNorm layer after them takes the mean out anyway.

Legend: F filters, I inputs of a filter.
"""

from __future__ import annotations

from collections.abc import Collection

from coterie.core.tree import Tree


def take_out_means(gradient: Tree, kernels: Collection[str]) -> Tree:
    """Return the gradient, in the kernels [F, I, ...] of these names without each filter's mean over its entries.

    Yong, Huang, Hua, Zhang: Gradient Centralization: A New Optimization Technique for Deep Neural Networks, ECCV 2020,
    equation 1.

    >>> import torch
    >>> take_out_means({"w": torch.tensor([[1.0, 3.0]])}, ["w"])
    {'w': tensor([[-1.,  1.]])}
    """
    if not kernels:
        return gradient
    return {
        name: g - g.mean(tuple(range(1, g.dim())), keepdim=True) if name in kernels else g
        for name, g in gradient.items()
    }
