"""The geometric median: the rule that gives the point with the least sum of distances to the updates."""

from __future__ import annotations

import torch
from torch import Tensor

from coterie.aggregation.checks import require_number, require_updates
from coterie.core.aggregators import Geometric
from coterie.core.errors import require
from coterie.core.kinds import Count, NonNegativeInt, Positive


def geometric_median(
    num_byzantine: NonNegativeInt = 0, smoothing: Positive = 1e-6, iterations: Count = 100
) -> Geometric:
    """Return the rule that gives the point with the smallest sum of distances to the updates.

    It is found by Weiszfeld's iteration from zero:

        z <- sum_i b_i x_i / sum_i b_i,    b_i = 1 / max(||x_i - z||, nu)

    An update nearer than nu to z counts as if it were at nu. If updates are shorter than nu, the result is the mean, so
    nu must be small beside them. The iteration needs only the coefficients of z, so it costs n^2, however long the
    updates are.

    Args:
        num_byzantine: f. It only makes the rule refuse a round with n <= 2 f updates.
        smoothing: nu.
        iterations: how many. After few (3 in Pillutla et al. and in ByzFL), z is still between zero and the median.

    Raises:
        Mistake: a parameter is out of range; in a round, that it has too few updates.

    Pillutla, Kakade, Harchaoui: Robust Aggregation for Federated Learning, IEEE Transactions on Signal Processing 2022,
    Algorithm 2 (the smoothed Weiszfeld algorithm), with equal weights.
    """
    require_number(num_byzantine)
    require("smoothing", smoothing, 0 < smoothing < float("inf"), "a number above 0")
    require("iterations", iterations, isinstance(iterations, int) and iterations >= 1, "1 or more")

    def geometric_median_coefficients(gram: Tensor) -> Tensor:  # [n, n] -> [n]
        require_updates("geometric_median", len(gram), num_byzantine)
        c = torch.zeros(len(gram), dtype=torch.float64, device=gram.device)
        for _ in range(iterations):
            weights = 1 / distances_to(gram, c).sqrt().clamp(min=smoothing)
            c = weights / weights.sum()
        return c

    return Geometric(geometric_median_coefficients)


def distances_to(gram: Tensor, c: Tensor) -> Tensor:
    """Return the squared distances ||x_i - z||^2 to z = sum_j c_j x_j, float64 [n], from the x_i's Gram matrix."""
    products = gram @ c
    return (gram.diagonal() - 2 * products + c @ products).clamp(min=0)
