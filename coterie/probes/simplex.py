"""The least value of a smooth function over the simplex {lambda: lambda_i >= 0, sum_i lambda_i = 1}."""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

import torch
from torch import Tensor

Function = Callable[[Tensor], tuple[float, Tensor]]
"""lambda, float64 [n] -> the value and its gradient [n]."""

HALVINGS = 20
"""So often a step is shortened before the search ends where it stands."""


class Least(NamedTuple):
    """Where the search ended.

    Attributes:
        at: lambda, float64 [n].
        value, first: there, and where it began.
        gap: <lambda, g> - min_i g_i, which bounds how much less a convex function can be anywhere on the simplex.
    """

    at: Tensor
    value: float
    first: float
    gap: float


def least(f: Function, start: Tensor, steps: int, tolerance: float = 1e-4) -> Least:
    """Exponentiated gradient descent, lambda_i <- lambda_i exp(-eta g_i) / sum, each step as long as one half of the
    decrease that its slope promises allows (Armijo); eta doubles after a step and halves after a refusal.

    No step raises the value. A weight that is 0 at the start stays 0. For a function that is not convex the end is
    where no small step helps.

    Args:
        f: the function.
        start: lambda at the beginning [n].
        steps: the most that are taken.
        tolerance: the search ends where `gap` is no more than this share of the value.

    >>> f = lambda x: (float((x - torch.tensor([0.8, 0.2])).square().sum()), 2 * (x - torch.tensor([0.8, 0.2])))
    >>> least(f, torch.tensor([0.5, 0.5], dtype=torch.float64), steps=50, tolerance=1e-9).at
    tensor([0.8000, 0.2000], dtype=torch.float64)

    Kivinen and Warmuth: Exponentiated Gradient versus Gradient Descent for Linear Predictors, 1997.
    """
    at = start.double()
    value, slope = f(at)
    first, eta = value, 1 / max(float(slope.max() - slope.min()), 1e-12)
    for _ in range(steps):
        if _gap(at, slope) <= tolerance * abs(value):
            break
        for _ in range(HALVINGS):
            to = torch.softmax(at.log() - eta * slope, 0)
            below, steeper = f(to)
            if below <= value + 0.5 * float(slope @ (to - at)):
                at, value, slope, eta = to, below, steeper, 2 * eta
                break
            eta /= 2
        else:
            break
    return Least(at, value, first, _gap(at, slope))


def _gap(at: Tensor, slope: Tensor) -> float:
    return float(at @ slope - slope[at > 0].min())
