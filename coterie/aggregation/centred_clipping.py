"""Centred clipping: the rule that moves a centre by the mean of the updates' clipped differences from it."""

from __future__ import annotations

import torch
from torch import Tensor

from coterie.aggregation.checks import require_number, require_updates
from coterie.aggregation.geometric_median import distances_to
from coterie.core.aggregators import Geometric
from coterie.core.errors import require
from coterie.core.kinds import Count, NonNegativeInt, Positive


def centred_clipping(radius: Positive, iterations: Count = 1, num_byzantine: NonNegativeInt = 0) -> Geometric:
    """Return the rule whose centre moves by the mean of the updates' differences from it, each cut to a length.

        v <- v + 1 / n sum_i (x_i - v) min(1, tau / ||x_i - v||)

    The centre starts at zero in every round. For differences of weights, this is where the last round ended. The paper
    starts at the last round's aggregate, which suits momentum and would need state.

    Args:
        radius: tau. No value suits all federations: one above the updates' lengths gives the mean.
        iterations: how often the centre moves.
        num_byzantine: f. It only makes the rule refuse a round with n <= 2 f updates.

    Raises:
        Mistake: a parameter is out of range; in a round, that it has too few updates.

    Karimireddy, He, Jaggi: Learning from History for Byzantine Robust Optimization, ICML 2021, equation CC.
    """
    require_number(num_byzantine)
    require("radius", radius, 0 < radius < float("inf"), "a number above 0")
    require("iterations", iterations, isinstance(iterations, int) and iterations >= 1, "1 or more")

    def centred_clipping_coefficients(gram: Tensor) -> Tensor:  # [n, n] -> [n]
        n = len(gram)
        require_updates("centred_clipping", n, num_byzantine)
        c = torch.zeros(n, dtype=torch.float64, device=gram.device)
        for _ in range(iterations):
            cut = (radius / distances_to(gram, c).sqrt()).clamp(max=1)  # 1 where the distance is 0
            c = c * (1 - cut.mean()) + cut / n
        return c

    return Geometric(centred_clipping_coefficients)
