"""The mean around the median: the rule that averages the values nearest to it, coordinate by coordinate."""

from __future__ import annotations

from torch import Tensor

from coterie.aggregation.checks import require_number, require_updates
from coterie.aggregation.median import middle
from coterie.core.aggregators import Coordinatewise
from coterie.core.kinds import NonNegativeInt


def meamed(num_byzantine: NonNegativeInt) -> Coordinatewise:
    """Return the rule that averages the n - f values of every coordinate that are nearest to its median.

        m_k = 1 / (n - f) sum_{j = 1}^{n - f} x_(j)k,    |x_(1)k - median_k| <= ... <= |x_(n)k - median_k|

    Args:
        num_byzantine: f.

    Raises:
        Mistake: a parameter is out of range; in a round, that it has too few updates (n <= 2 f).

    Xie, Koyejo, Gupta: Generalized Byzantine-Tolerant SGD, 2018, Definition 9.
    """
    require_number(num_byzantine)

    def mean_near_median(x: Tensor) -> Tensor:  # [n, d] -> [d]
        require_updates("meamed", len(x), num_byzantine)
        order = (x - middle(x)).abs().sort(dim=0, stable=True).indices
        return x.gather(0, order[: len(x) - num_byzantine]).mean(0)

    return Coordinatewise(mean_near_median)
