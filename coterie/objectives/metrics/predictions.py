"""What a model predicts: classes, flags or numbers, without the labels that count for nothing.

Legend: B batch, C classes, L labels of an example, P places (examples, pixels or positions) that count.
"""

from __future__ import annotations

import torch
from torch import Tensor

from coterie.objectives.classification import IGNORE
from coterie.objectives.kinds import CLASSES, FLAGS, Kind, find_kind, fit


def flatten_classes(outputs: Tensor, y: Tensor | None, ignore_index: int | None) -> tuple[Tensor, Tensor]:
    """Return the scores [P, C] and the labels [P] of the places that count, on the CPU."""
    outputs, y = fit(find_kind("classification"), outputs, y)
    scores, labels = outputs.detach().reshape(-1, outputs.shape[-1]).cpu(), y.reshape(-1).long().cpu()
    keep = labels != IGNORE
    keep = keep if ignore_index is None else keep & (labels != ignore_index)
    return scores[keep], labels[keep]


def predict(kind: Kind, outputs: Tensor, y: Tensor | None, ignore_index: int | None = None) -> tuple[Tensor, Tensor]:
    """Return predictions and labels on the CPU: classes [P], flags [P] or [P, L], or numbers float64 [P] or [P, L].

    Where an output is not finite, nothing was predicted: the prediction is then a wrong class or flag, and of numbers
    NaN. A flag that counts for nothing is -1 in both.
    """
    if kind.labels == CLASSES:
        scores, labels = flatten_classes(outputs, y, ignore_index)
        likeliest = scores.argmax(1)
        found = scores.gather(1, likeliest[:, None]).squeeze(1).isfinite()
        return torch.where(found, likeliest, (labels + 1) % scores.shape[1]), labels
    outputs, target = (v.detach().cpu() for v in fit(kind, outputs, y))
    known = torch.ones_like(target, dtype=torch.bool) if ignore_index is None else target != ignore_index
    if kind.labels == FLAGS:
        right = (target > 0).long()
        predicted = torch.where(outputs.isfinite(), (outputs > 0).long(), 1 - right)
        if target.dim() == 1:
            return predicted[known], right[known]
        return torch.where(known, predicted, -1), torch.where(known, right, -1)
    if target.dim() == 1:
        return outputs.double()[known], target.double()[known]
    whole = known.all(1)
    return outputs.double()[whole], target.double()[whole]
