"""Clipping before a rule, at a given length or at one that follows from the round."""

from __future__ import annotations

import torch
from torch import Tensor

from coterie.aggregation.checks import require_number, require_updates
from coterie.core.aggregators import Mixing
from coterie.core.errors import require
from coterie.core.kinds import NonNegativeInt, Positive


def clip(clip_length: Positive) -> Mixing:
    """Return the step that shortens every update longer than a given length to that length.

        y_i = min(1, c / ||x_i||) x_i

    It makes sense only if zero is a harmless update, as it is for differences of weights. Robust FBN leaves it out for
    its statistics.

    Args:
        clip_length: c.

    Raises:
        Mistake: a parameter is out of range.
    """
    require("clip_length", clip_length, 0 < clip_length < float("inf"), "a number above 0")
    length = torch.tensor(clip_length, dtype=torch.float64)
    return Mixing(lambda gram, key: torch.diag(_shortening(gram, length)), of_differences=True)


def arc(num_byzantine: NonNegativeInt) -> Mixing:
    """Return the step of adaptive robust clipping: it shortens the k longest updates to the length of the next.

        k = floor(2 f / n (n - f)),    y_i = min(1, ||x_(k + 1)|| / ||x_i||) x_i,    ||x_(1)|| >= ... >= ||x_(n)||

    Args:
        num_byzantine: f.

    Raises:
        Mistake: a parameter is out of range; in a round, that it has too few updates (n <= 2 f).

    Allouah, Guerraoui, Gupta, Jellouli, Rizk, Stephan: Boosting Robustness by Clipping Gradients in Distributed
    Learning, 2024, Algorithm 2.
    """
    require_number(num_byzantine)

    def shortening_matrix(gram: Tensor, key: Tensor) -> Tensor:  # [n, n] -> [n, n]
        n, f = len(gram), num_byzantine
        require_updates("arc", n, f)
        clipped = 2 * f * (n - f) // n
        lengths = gram.diagonal().clamp(min=0).sqrt().sort(descending=True).values
        return torch.diag(_shortening(gram, lengths[clipped]))

    return Mixing(shortening_matrix)


def _shortening(gram: Tensor, length: Tensor) -> Tensor:
    """Return the factor that shortens each update to a length, float64 [n]; 1 for updates that are not longer."""
    lengths = gram.diagonal().clamp(min=0).sqrt()
    return torch.where(lengths > length, length.to(lengths) / lengths.clamp(min=1e-300), 1.0)
