"""Measure how far a model is from its teachers, on examples that all of them have.

Legend: B batch, C classes. Outputs are logits [B, C], or [B, T, C] with T positions per example.
"""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional as F


def soften(outputs: Tensor, temperature: float = 1.0) -> Tensor:
    """Return a teacher's posteriors softmax(outputs / T), of the shape of `outputs` [B, ..., C]."""
    return F.softmax(outputs / temperature, dim=-1)


def distillation(outputs: Tensor, teacher: Tensor, temperature: float = 1.0) -> tuple[Tensor, Tensor]:
    """Return T^2 KL(teacher || softmax(outputs / T)): its sum over an example's positions [B], and their number [B].

    The teacher is a constant: posteriors of the shape of `outputs` at the same temperature. T^2 keeps the gradient as
    large as at T = 1 (Hinton, Vinyals, Dean 2015, section 2.1). The gradient is linear in the teacher, so the mean
    over teachers and the mean teacher give the same one.

    >>> outputs = torch.tensor([[1.0, -1.0]])
    >>> bool(distillation(outputs, soften(outputs))[0].abs() < 1e-6)  # of a model with itself
    True
    """
    student = F.log_softmax(outputs / temperature, dim=-1)
    each = F.kl_div(student, teacher.clamp(min=0), reduction="none").sum(-1)  # [B, ...]
    return _sums_and_counts(temperature**2 * each)


def absolute_difference(outputs: Tensor, scores: Tensor) -> tuple[Tensor, Tensor]:
    """Return the mean over classes of |outputs - scores|: its sum over positions [B], and their number [B]."""
    return _sums_and_counts((outputs - scores).abs().mean(-1))


def _sums_and_counts(values: Tensor) -> tuple[Tensor, Tensor]:
    """Return the sums [B] and counts [B] of values [B, ...]."""
    flat = values.reshape(len(values), -1)
    return flat.sum(1), torch.full_like(flat[:, 0], flat.shape[1])
