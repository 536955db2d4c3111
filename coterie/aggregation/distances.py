"""Distances between updates, from their inner products."""

from __future__ import annotations

import torch
from torch import Tensor


def squared_distances(gram: Tensor) -> Tensor:
    """Return ||x_i - x_j||^2 from a Gram matrix, float64 [n, n], 0 or more, and exactly 0 on the diagonal.

    If a square leaves the range of float64, its update is infinitely far from every other.
    """
    squares = gram.diagonal()
    distances = squares[:, None] + squares[None, :] - 2 * gram
    distances = torch.nan_to_num(distances, nan=torch.inf, posinf=torch.inf).clamp(min=0)
    return distances.fill_diagonal_(0)


def nearest(distances: Tensor, k: int) -> Tensor:
    """Return the k updates nearest to each update, itself included, int64 [n, k]; of equally near ones the first."""
    return distances.sort(dim=1, stable=True).indices[:, :k]


def even_coefficients(chosen: Tensor, n: int) -> Tensor:
    """Return coefficients, float64 [n]: 1 / k for the k updates `chosen` (int64 [k]), and 0 for the others."""
    coefficients = torch.zeros(n, dtype=torch.float64, device=chosen.device)
    coefficients[chosen] = 1 / len(chosen)
    return coefficients
