"""Minimum-diameter averaging: the rule that averages the set of updates that lie closest together."""

from __future__ import annotations

from itertools import combinations, islice
from math import comb

import torch
from torch import Tensor

from coterie.aggregation.checks import require_number, require_updates
from coterie.aggregation.distances import even_coefficients, squared_distances
from coterie.core.aggregators import Geometric
from coterie.core.errors import Mistake
from coterie.core.kinds import NonNegativeInt

MAX_SETS = 1_000_000


def mda(num_byzantine: NonNegativeInt) -> Geometric:
    """Return the rule that averages the n - f updates whose largest distance from one another is the smallest.

        S* = argmin_{S, |S| = n - f} max_{i, j in S} ||x_i - x_j||,    1 / (n - f) sum_{i in S*} x_i

    All C(n, f) sets are tried. Of sets of the same diameter, the one with the smallest sum of squared distances counts.

    Args:
        num_byzantine: f.

    Raises:
        Mistake: a parameter is out of range; in a round, that it has too few updates (n <= 2 f), or more sets than can
            be tried.

    El Mhamdi, Guerraoui, Guirguis, Hoang, Rouault: Genuinely Distributed Byzantine Machine Learning, PODC 2020, after
    Rousseeuw 1985.
    """
    require_number(num_byzantine)

    def mda_coefficients(gram: Tensor) -> Tensor:  # [n, n] -> [n]
        n, f = len(gram), num_byzantine
        require_updates("mda", n, f)
        if comb(n, f) > MAX_SETS:
            raise Mistake(
                f"with `num_byzantine` = {f} and {n} updates there are {comb(n, f)} sets to try; "
                "choose multi_krum, or a smaller cohort",
                key="name",
                value="mda",
            )
        return even_coefficients(_find_tightest(squared_distances(gram), n - f), n)

    return Geometric(mda_coefficients)


def _find_tightest(distances: Tensor, k: int) -> Tensor:
    """Return the set of k updates with the smallest diameter: int64 [k], on the device of the distances."""
    sets = combinations(range(len(distances)), k)
    best: tuple[float, float] = (float("inf"), float("inf"))
    found = torch.arange(k, device=distances.device)
    while block := list(islice(sets, 4096)):
        rows = torch.tensor(block, device=distances.device)  # [b, k]
        within = distances[rows[:, :, None], rows[:, None, :]].flatten(1)  # [b, k * k]
        spread = list(zip(within.amax(1).tolist(), within.sum(1).tolist(), strict=True))
        least = min(range(len(spread)), key=spread.__getitem__)
        if spread[least] < best:
            best, found = spread[least], rows[least]
    return found
