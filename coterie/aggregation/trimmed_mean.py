"""The coordinate-wise trimmed mean: the rule that leaves out the smallest and the largest values."""

from __future__ import annotations

import torch
from torch import Tensor

from coterie.aggregation.checks import require_number, require_updates
from coterie.aggregation.median import sort_columns
from coterie.core.aggregators import Coordinatewise
from coterie.core.kinds import NonNegativeInt


def trimmed_mean(num_byzantine: NonNegativeInt) -> Coordinatewise:
    """Return the rule that averages every coordinate without its f smallest and its f largest values.

        m_k = 1 / (n - 2 f) sum_{j = f + 1}^{n - f} x_(j)k,    x_(1)k <= ... <= x_(n)k

    With f = 0 it is the mean, with equal weights.

    Args:
        num_byzantine: f.

    Raises:
        Mistake: a parameter is out of range; in a round, that it has too few updates (n <= 2 f).

    Yin, Chen, Ramchandran, Bartlett: Byzantine-Robust Distributed Learning: Towards Optimal Statistical Rates, ICML
    2018, Definition 2, with beta = f / n.

    >>> trimmed_mean(1).rule(torch.tensor([[1.0], [100.0], [3.0], [5.0]]))
    tensor([4.])
    """
    require_number(num_byzantine)

    def mean_of_middle(x: Tensor) -> Tensor:  # [n, d] -> [d]
        n, f = len(x), num_byzantine
        require_updates("trimmed_mean", n, f)
        return torch.mean(sort_columns(x)[f : n - f], dim=0)

    return Coordinatewise(mean_of_middle)
