"""The coordinate-wise median of updates, as a rule."""

from __future__ import annotations

from torch import Tensor

from coterie.aggregation.checks import require_number, require_updates
from coterie.core.aggregators import Coordinatewise
from coterie.core.kinds import NonNegativeInt


def median(num_byzantine: NonNegativeInt = 0) -> Coordinatewise:
    """Return the rule that takes the median of every coordinate; of an even number, the mean of the two in the middle.

        m_k = median(x_1k, ..., x_nk)

    Args:
        num_byzantine: f. It only makes the rule refuse a round with n <= 2 f updates.

    Raises:
        Mistake: a parameter is out of range; in a round, that it has too few updates.

    Yin, Chen, Ramchandran, Bartlett: Byzantine-Robust Distributed Learning: Towards Optimal Statistical Rates, ICML
    2018, Definition 1.

    >>> import torch
    >>> median().rule(torch.tensor([[1.0, 0.0], [2.0, 9.0], [4.0, 1.0], [9.0, 2.0]]))
    tensor([3.0000, 1.5000])
    """
    require_number(num_byzantine)

    def median_of_rows(x: Tensor) -> Tensor:  # [n, d] -> [d]
        require_updates("median", len(x), num_byzantine)
        return middle(x)

    return Coordinatewise(median_of_rows)


def middle(x: Tensor) -> Tensor:
    """Return the median [d] over the rows of [n, d]."""
    n = len(x)
    ordered = x.sort(dim=0).values
    return ordered[(n - 1) // 2] / 2 + ordered[n // 2] / 2
