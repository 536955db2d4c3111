"""Centred clipping."""

from __future__ import annotations

import torch
from torch import Tensor

from coterie.aggregation.checks import require_number, require_updates
from coterie.aggregation.geometric_median import squared_to
from coterie.core.aggregators import Geometric
from coterie.core.errors import require


def centred_clipping(radius: float, iterations: int = 1, num_byzantine: int = 0) -> Geometric:
    """A centre that moves by the mean of the updates' distances to it, each cut to a length.

        v <- v + 1 / n sum_i (x_i - v) min(1, tau / ||x_i - v||)

    It begins at zero in every round, which for differences of weights is where the last round ended. The paper begins
    at the last round's aggregate; that is made for momentum, and would be state.

    Args:
        radius: tau. There is no good value for all: one above the updates' lengths gives the mean.
        iterations: how many.
        num_byzantine: f, which changes nothing but that a round with n <= 2 f updates is refused.

    Raises:
        Mistake: a parameter is out of range; in a round, that it has too few updates.

    Karimireddy, He, Jaggi: Learning from History for Byzantine Robust Optimization, ICML 2021, equation CC.
    """
    require_number(num_byzantine)
    require("radius", radius, 0 < radius < float("inf"), "a number above 0")
    require("iterations", iterations, isinstance(iterations, int) and iterations >= 1, "1 or more")

    def coefficients(gram: Tensor) -> Tensor:  # [n, n] -> [n]
        n = len(gram)
        require_updates("centred_clipping", n, num_byzantine)
        c = torch.zeros(n, dtype=torch.float64, device=gram.device)
        for _ in range(iterations):
            cut = (radius / squared_to(gram, c).sqrt()).clamp(max=1)  # 1 where the distance is 0
            c = c * (1 - cut.mean()) + cut / n
        return c

    return Geometric(coefficients)
