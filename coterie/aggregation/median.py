"""The coordinate-wise median of updates, as a rule."""

from __future__ import annotations

import numpy as np
import torch
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
    ordered = sort_columns(x)
    return ordered[(n - 1) // 2] / 2 + ordered[n // 2] / 2


def sort_columns(x: Tensor) -> Tensor:
    """Return x [n, d] with every column in rising order.

    On a CPU NumPy sorts: it moves no indices along, which takes PyTorch several times as long. PyTorch sorts where
    there is a zero with a minus, since the order of the two zeros is its own.
    """
    known = x.device.type == "cpu" and x.dtype in (torch.float32, torch.float64)
    if not known or bool(((x == 0) & x.signbit()).any()):
        return x.sort(dim=0).values
    return torch.from_numpy(np.sort(x.detach().numpy(), axis=0))
