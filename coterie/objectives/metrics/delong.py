"""The 95 % interval of an area under the ROC curve, from how many examples have each score.

    V10_i = share of the negatives below positive i, ties by half          A = mean V10
    V01_j = share of the positives above negative j, ties by half
    variance = var(V10) / m + var(V01) / n
    interval = the inverse of the log odds at  log(A / (1 - A)) +- 1.96 sqrt(variance) / (A (1 - A))

Departures from the paper: the interval is symmetric in the log odds, so it stays between 0 and 1. It says how far the
area would move with other test examples, drawn alike and independently; not how far it would with another training.

DeLong, DeLong, Clarke-Pearson: Comparing the areas under two or more correlated receiver operating characteristic
curves, Biometrics 1988, equations 1 to 5; for the log odds, Pepe: The Statistical Evaluation of Medical Tests, 2003,
section 5.2.5.

Legend: m positives, n negatives, B scores in order.
"""

from __future__ import annotations

import math

from torch import Tensor

QUANTILE = 1.959963984540054
"""Of the normal distribution, for 95 %."""


def delong_interval(counts: Tensor) -> tuple[float, float] | None:
    """Return the lower and the upper end; None below two examples of a label, and where no score varies the area.

    The latter is so for an area of 0 or 1.

    Args:
        counts: how many negatives, and how many positives, have each score, float64 [2, B].
    """
    negatives, positives = counts
    n, m = float(negatives.sum()), float(positives.sum())
    if n < 2 or m < 2:
        return None
    of_positives = (negatives.cumsum(0) - negatives / 2) / n  # V10 of a positive with each score [B]
    of_negatives = (m - positives.cumsum(0) + positives / 2) / m  # V01 of a negative with each score [B]
    area = float((positives * of_positives).sum()) / m
    spread_10 = float((positives * (of_positives - area) ** 2).sum()) / (m - 1)
    spread_01 = float((negatives * (of_negatives - area) ** 2).sum()) / (n - 1)
    variance = spread_10 / m + spread_01 / n
    if variance <= 0 or not 0 < area < 1:
        return None
    middle, half = math.log(area / (1 - area)), QUANTILE * math.sqrt(variance) / (area * (1 - area))
    return _from_log_odds(middle - half), _from_log_odds(middle + half)


def _from_log_odds(value: float) -> float:
    return 1 / (1 + math.exp(-value)) if value >= 0 else 1 - 1 / (1 + math.exp(value))
