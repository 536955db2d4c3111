"""Nearest-neighbour mixing: the step that averages each update with those nearest to it before a rule."""

from __future__ import annotations

import torch
from torch import Tensor

from coterie.aggregation.checks import require_number, require_updates
from coterie.aggregation.distances import nearest, squared_distances
from coterie.core.aggregators import Mixing
from coterie.core.kinds import NonNegativeInt


def nnm(num_byzantine: NonNegativeInt) -> Mixing:
    """Return the step that replaces every update by the mean of the n - f updates nearest to it, itself included.

        y_i = 1 / (n - f) sum_{j in N_i} x_j,    N_i: the n - f nearest to x_i

    It removes most of the differences between honest clients, behind which an attack can hide.

    Args:
        num_byzantine: f.

    Raises:
        Mistake: a parameter is out of range; in a round, that it has too few updates (n <= 2 f).

    Allouah, Farhadkhani, Guerraoui, Gupta, Pinot, Stephan: Fixing by Mixing: A Recipe for Optimal Byzantine ML under
    Heterogeneity, AISTATS 2023, Algorithm 2.
    """
    require_number(num_byzantine)

    def neighbour_weights(gram: Tensor, key: Tensor) -> Tensor:
        """Return the weights [n, n] that average each update's n - f nearest; `key` is not used."""
        n = len(gram)
        require_updates("nnm", n, num_byzantine)
        near = nearest(squared_distances(gram), n - num_byzantine)  # [n, n - f]
        return torch.zeros_like(gram).scatter_(1, near, 1 / near.shape[1])

    return Mixing(neighbour_weights)
