"""Mean and variance per channel, pooled exactly: of steps, and of passes through one layer.

Legend: C channels.
"""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor


class Moments(NamedTuple):
    """What a set of values is like, channel by channel."""

    mean: Tensor  # [C]
    var: Tensor  # [C], biased: divided by the number of values
    number: Tensor  # [] of values per channel; where it is 0, mean and var mean nothing

    def and_those_of(self, other: Moments) -> Moments:
        """Those of both sets together, without the difference of two large squares (Chan, Golub and LeVeque 1979).

        >>> two, one = Moments(torch.tensor([1.0]), torch.tensor([4.0]), torch.tensor(2)), torch.tensor([4.0])
        >>> two.and_those_of(Moments(one, torch.zeros(1), torch.tensor(1))).mean
        tensor([2.])
        """
        number = self.number + other.number
        share = other.number / number.clamp(min=1)
        gap = other.mean - self.mean
        between = gap * gap * share * (1 - share)
        mean, within = torch.lerp(self.mean, other.mean, share), torch.lerp(self.var, other.var, share)
        return Moments(mean, within + between, number)
