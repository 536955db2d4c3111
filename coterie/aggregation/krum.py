"""Krum and Multi-Krum: choose the updates that lie closest to most others."""

from __future__ import annotations

from typing import Literal

import torch
from torch import Tensor

from coterie.aggregation.checks import require_number, require_updates
from coterie.aggregation.distances import even_coefficients, squared_distances
from coterie.core.aggregators import Geometric
from coterie.core.errors import require
from coterie.core.kinds import NonNegativeInt

Neighbours = Literal["n-f-1", "n-f-2"]


def krum(num_byzantine: NonNegativeInt, neighbours: Neighbours = "n-f-1") -> Geometric:
    """Return the rule that chooses the one update with the lowest score; of equal ones the first.

        score_i = sum of the k smallest ||x_i - x_j||^2 over j != i
        x_{i*},   i* = argmin_i score_i

    Libraries' Krums differ by one neighbour, so it is a parameter. k = n - f - 1, which needs n > 2 f updates, is that
    of Allouah et al. and of ByzFL ("the n - f nearest", x_i itself among them). k = n - f - 2, which needs
    n >= 2 f + 3, is that of the original.

    Args:
        num_byzantine: f.
        neighbours: "n-f-1" or "n-f-2".

    Raises:
        Mistake: a parameter is out of range; in a round, that it has too few updates.

    Blanchard, El Mhamdi, Guerraoui, Stainer: Machine Learning with Adversaries: Byzantine Tolerant Gradient Descent,
    NeurIPS 2017, section 4. Allouah, Farhadkhani, Guerraoui, Gupta, Pinot, Stephan: Fixing by Mixing: A Recipe for
    Optimal Byzantine ML under Heterogeneity, AISTATS 2023, appendix 8.1.
    """
    _check_parameters(num_byzantine, neighbours)

    def krum_coefficients(gram: Tensor) -> Tensor:  # [n, n] -> [n]
        return even_coefficients(_order_by_score("krum", gram, num_byzantine, neighbours)[:1], len(gram))

    return Geometric(krum_coefficients)


def multi_krum(num_byzantine: NonNegativeInt, neighbours: Neighbours = "n-f-1") -> Geometric:
    """Return the rule that averages the n - f updates with the lowest scores; see `krum`.

    Args:
        num_byzantine: f.
        neighbours: "n-f-1" or "n-f-2".

    Raises:
        Mistake: a parameter is out of range; in a round, that it has too few updates.

    As `krum`; the mean of the best m is Blanchard et al.'s section 5, with m = n - f as in Allouah et al.
    """
    _check_parameters(num_byzantine, neighbours)

    def multi_krum_coefficients(gram: Tensor) -> Tensor:  # [n, n] -> [n]
        order = _order_by_score("multi_krum", gram, num_byzantine, neighbours)
        return even_coefficients(order[: len(gram) - num_byzantine], len(gram))

    return Geometric(multi_krum_coefficients)


def _check_parameters(num_byzantine: int, neighbours: Neighbours) -> None:
    require_number(num_byzantine)
    require("neighbours", neighbours, neighbours in ("n-f-1", "n-f-2"), '"n-f-1" or "n-f-2"')


def _order_by_score(rule: str, gram: Tensor, f: int, neighbours: Neighbours) -> Tensor:
    """Return the updates' numbers by Krum's score, the lowest first, int64 [n]; refuse too few updates."""
    n = len(gram)
    require_updates(rule, n, f, least=2 * f + 1 if neighbours == "n-f-1" else 2 * f + 3)
    k = n - f - (1 if neighbours == "n-f-1" else 2)
    others = squared_distances(gram).sort(dim=1).values[:, 1 : k + 1]  # the first is the distance to itself
    return torch.sort(others.sum(1), stable=True).indices
