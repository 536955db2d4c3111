"""Minimise a smooth function over the simplex {lambda: lambda_i >= 0, sum_i lambda_i = 1}."""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

import torch
from torch import Tensor

Function = Callable[[Tensor], tuple[float, Tensor]]
"""lambda, float64 [n] -> the value and its gradient [n]."""

MAX_HALVINGS = 20
"""How often a step is halved before the search ends."""


class Minimum(NamedTuple):
    """The result of a search.

    Attributes:
        at: lambda, float64 [n].
        value: of the function there.
        first: the value at the start.
        gap: <lambda, g> - min_i g_i. A convex function is nowhere on the simplex lower than `value` - `gap`.
    """

    at: Tensor
    value: float
    first: float
    gap: float


def minimise(f: Function, start: Tensor, steps: int, tolerance: float = 1e-4) -> Minimum:
    """Minimise a function over the simplex by exponentiated gradient descent.

        lambda_i <- lambda_i exp(-eta g_i) / sum_j lambda_j exp(-eta g_j)

    A step is taken if it brings at least half of the decrease that the slope promises (Armijo); eta doubles after it.
    Otherwise eta halves. So no step raises the value. A weight that is 0 at the start stays 0. For a function that is
    not convex, the search ends where no small step helps.

    Args:
        f: the function.
        start: lambda at the beginning [n].
        steps: the most that are taken.
        tolerance: the search ends where `gap` is at most this share of the value.

    >>> f = lambda x: (float((x - torch.tensor([0.8, 0.2])).square().sum()), 2 * (x - torch.tensor([0.8, 0.2])))
    >>> minimise(f, torch.tensor([0.5, 0.5], dtype=torch.float64), steps=50, tolerance=1e-9).at
    tensor([0.8000, 0.2000], dtype=torch.float64)

    Kivinen and Warmuth: Exponentiated Gradient versus Gradient Descent for Linear Predictors, 1997.
    """
    at = start.double()
    value, slope = f(at)
    first, eta = value, 1 / max(float(slope.max() - slope.min()), 1e-12)
    for _ in range(steps):
        if _duality_gap(at, slope) <= tolerance * abs(value):
            break
        for _ in range(MAX_HALVINGS):
            next_at = torch.softmax(at.log() - eta * slope, 0)
            next_value, next_slope = f(next_at)
            if next_value <= value + 0.5 * float(slope @ (next_at - at)):
                at, value, slope, eta = next_at, next_value, next_slope, 2 * eta
                break
            eta /= 2
        else:
            break
    return Minimum(at, value, first, _duality_gap(at, slope))


def _duality_gap(at: Tensor, slope: Tensor) -> float:
    """Return <lambda, g> - min_i g_i, over the weights above 0."""
    return float(at @ slope - slope[at > 0].min())
