"""Metrics that are a function of a mean, such as the root of the mean squared error."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

from coterie.core.task import Metric, Score


@dataclass(frozen=True)
class OfMean(Metric):
    """f(sum of sums / sum of counts) of a score.

    Attributes:
        score: the score.
        function: f, from a float to a float.

    >>> from coterie.objectives.numbers import squared_error
    >>> rmse = OfMean(squared_error, math.sqrt)
    >>> rmse.value(rmse.totals(torch.tensor([1.0, 3.0]), torch.tensor([1.0, 1.0])))
    1.4142135623730951
    """

    score: Score
    function: Callable[[float], float]
    higher_is_better: bool = False
    size: int = 2
    needs: str = "finite outputs, and an example that counts"

    def totals(self, outputs: Tensor, y: Tensor | None) -> Tensor:
        """Return the sum of sums and the sum of counts, [2]."""
        sums, counts = self.score(outputs, y)
        return torch.stack([sums.double().sum(), counts.double().sum()]).cpu()

    def value(self, totals: Tensor) -> float:
        """Return f of the mean; NaN where nothing counts."""
        total, count = totals.tolist()
        if not count or not math.isfinite(total):
            return math.nan
        try:
            return self.function(total / count)
        except OverflowError:
            return math.inf
