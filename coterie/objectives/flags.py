"""Binary cross-entropy and accuracy of labels that are 0 or 1: one for each example, or several.

Legend: B batch, L labels of an example.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import functional as F

from coterie.objectives.kinds import KINDS, Kind, fit


@dataclass(frozen=True)
class FlagLoss:
    """Binary cross-entropy of logits, as `torch.nn.BCEWithLogitsLoss` has it, as a `Score`.

    Attributes:
        kind: binary or multilabel.
        class_weights: of a binary task, how much examples with the label 0 and 1 count, [2]: the loss is the weighted
            mean, as that of `torch.nn.CrossEntropyLoss(weight=...)` with two classes. Of a multilabel task, how much a
            positive counts, [L]: PyTorch's `pos_weight`.
        label_smoothing: s; a label y becomes y (1 - s) + s / 2.
        ignore_index: a label that counts for nothing.
    """

    kind: Kind = KINDS["binary"]
    class_weights: Tensor | None = None
    label_smoothing: float = 0.0
    ignore_index: int | None = None

    def __call__(self, outputs: Tensor, y: Tensor | None) -> tuple[Tensor, Tensor]:
        """Return the sum over each example's labels [B], and what they count [B]."""
        outputs, target = fit(self.kind, outputs, y)
        counts = _count(target, self.ignore_index)
        if self.ignore_index is not None:
            target = torch.where(counts > 0, target, 0.0)
        if self.class_weights is not None and self.kind.name == "binary":
            counts = counts * torch.where(target > 0, self.class_weights[1], self.class_weights[0])
        positive = self.class_weights if self.kind.name == "multilabel" else None
        soft = target * (1 - self.label_smoothing) + self.label_smoothing / 2 if self.label_smoothing else target
        losses = F.binary_cross_entropy_with_logits(outputs, soft, reduction="none", pos_weight=positive) * counts
        return (losses.sum(1), counts.sum(1)) if losses.dim() > 1 else (losses, counts)


@dataclass(frozen=True)
class FlagAccuracy:
    """The share of labels that the sign of their logit tells right, as a `Score`.

    Where an output is not finite, nothing was predicted, and that is wrong.
    """

    kind: Kind = KINDS["binary"]
    ignore_index: int | None = None

    def __call__(self, outputs: Tensor, y: Tensor | None) -> tuple[Tensor, Tensor]:
        """Return how many of each example's labels are right [B], and how many count [B]."""
        outputs, target = fit(self.kind, outputs, y)
        counts = _count(target, self.ignore_index)
        right = ((outputs > 0) == (target > 0)) & outputs.isfinite()
        hits = right.to(target.dtype) * counts
        return (hits.sum(1), counts.sum(1)) if hits.dim() > 1 else (hits, counts)


def _count(target: Tensor, ignore_index: int | None) -> Tensor:
    """Return 1 for each label that counts, else 0, in the shape and type of `target`."""
    return torch.ones_like(target) if ignore_index is None else (target != ignore_index).to(target.dtype)
