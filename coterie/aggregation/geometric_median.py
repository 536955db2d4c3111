"""The geometric median."""

from __future__ import annotations

import torch
from torch import Tensor

from coterie.aggregation.checks import require_number, require_updates
from coterie.core.aggregators import Geometric
from coterie.core.errors import require


def geometric_median(num_byzantine: int = 0, smoothing: float = 1e-6, iterations: int = 100) -> Geometric:
    """The point whose distances to the updates have the least sum, by Weiszfeld's iteration from zero.

        z <- sum_i b_i x_i / sum_i b_i,    b_i = 1 / max(||x_i - z||, nu)

    An update nearer than nu to z counts as if it were at nu: where updates are shorter than nu, the result is the mean.
    So nu must be small beside them. All that is needed of z is its coefficients, so an iteration costs n^2, however
    long the updates are.

    Args:
        num_byzantine: f, which changes nothing but that a round with n <= 2 f updates is refused.
        smoothing: nu.
        iterations: how many; few (3 in Pillutla et al. and in ByzFL) leave z near zero's side of the median.

    Raises:
        Mistake: a parameter is out of range; in a round, that it has too few updates.

    Pillutla, Kakade, Harchaoui: Robust Aggregation for Federated Learning, IEEE Transactions on Signal Processing 2022,
    Algorithm 2 (the smoothed Weiszfeld algorithm), with every client alike.
    """
    require_number(num_byzantine)
    require("smoothing", smoothing, 0 < smoothing < float("inf"), "a number above 0")
    require("iterations", iterations, isinstance(iterations, int) and iterations >= 1, "1 or more")

    def coefficients(gram: Tensor) -> Tensor:  # [n, n] -> [n]
        require_updates("geometric_median", len(gram), num_byzantine)
        c = torch.zeros(len(gram), dtype=torch.float64, device=gram.device)
        for _ in range(iterations):
            weights = 1 / squared_to(gram, c).sqrt().clamp(min=smoothing)
            c = weights / weights.sum()
        return c

    return Geometric(coefficients)


def squared_to(gram: Tensor, c: Tensor) -> Tensor:
    """||x_i - z||^2 for z = sum_j c_j x_j: float64 [n]."""
    products = gram @ c
    return (gram.diagonal() - 2 * products + c @ products).clamp(min=0)
