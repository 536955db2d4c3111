"""Areas under curves: of the receiver's operating characteristic, and of precision over recall.

They depend on the order of the examples' scores alone. So that totals of silos can be added up, the scores are rounded
to 9 binary digits, and the examples with each rounded score and each label are counted. The values are those of
scikit-learn for the rounded scores, in which examples with the same score count as tied. What rounding changes is far
below what the test examples themselves leave open.

The counts of few examples say the rounded score and the label of each of them: they are as private as the labels.

Legend: B batch, C columns (1, or one for each class or label), n bins.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor

from coterie.core.task import Metric
from coterie.objectives.kinds import CLASSES, Kind, fit
from coterie.objectives.metrics.delong import delong_interval
from coterie.objectives.metrics.predictions import flatten_classes

DROPPED_BITS = 2
"""Of float16's 10 binary digits after the first."""
BINS = 2 ** (16 - DROPPED_BITS)
MAX_COLUMNS = 200
"""Beyond it, the counts of one evaluation would need more than 50 MB."""


@dataclass(frozen=True)
class AreaUnderCurve(Metric):
    """The area under a curve: of each column, and the mean over the columns for which it is defined.

    Of classes, a column is one class against all others, and its score is the log odds of the class.

    Attributes:
        curve: "roc", or "precision_recall" (the average precision).
        kind: what the labels are.
        columns: C.
        ignore_index: a label that counts for nothing.
    """

    curve: Literal["roc", "precision_recall"]
    kind: Kind
    columns: int
    ignore_index: int | None = None
    higher_is_better: bool = True
    needs: str = "examples of both classes"

    @property
    def size(self) -> int:  # type: ignore[override]
        """How many totals there are: a count for each column, label and bin."""
        return int(self.columns * 2 * BINS)

    def totals(self, outputs: Tensor, y: Tensor | None) -> Tensor:
        """Return how many examples have each rounded score, of each label and column, [C * 2 * n]."""
        if self.kind.labels == CLASSES:
            scores, labels = flatten_classes(outputs, y, self.ignore_index)
            flags = torch.arange(self.columns) == labels[:, None]  # [B, C]
            scores, known = _log_odds(scores), torch.ones_like(flags)
        else:
            outputs, target = fit(self.kind, outputs, y)
            scores, target = (v.detach().cpu().reshape(len(v), self.columns) for v in (outputs, target))
            flags = target > 0
            known = target != self.ignore_index if self.ignore_index is not None else torch.ones_like(flags)
        bins = _bins(scores, flags)
        place = (torch.arange(scores.shape[1]) * 2 + flags.long()) * BINS + bins  # [B, C]
        return torch.bincount(place[known], minlength=self.size).double()

    def value(self, totals: Tensor) -> float:
        """Return the mean area over the columns that have examples of both labels; NaN where none has."""
        areas = [self._area(column) for column in totals.reshape(self.columns, 2, BINS)]
        known = [area for area in areas if area is not None]
        return sum(known) / len(known) if known else math.nan

    @property
    def has_interval(self) -> bool:
        """Whether this is the ROC curve of one logit, or of two classes, whose areas are the same."""
        of_two_classes = self.kind.labels == CLASSES and self.columns == 2
        return self.curve == "roc" and (self.columns == 1 or of_two_classes)

    def interval(self, totals: Tensor) -> tuple[float, float] | None:
        """Return the 95 % interval of the area; see `coterie.objectives.metrics.delong`."""
        return delong_interval(totals.reshape(self.columns, 2, BINS)[-1]) if self.has_interval else None

    @property
    def needs_of_own(self) -> str | None:
        """See `Metric.needs_of_own`.

        DeLong's variance divides by a class's number of examples minus 1: by a single one nobody can say how far the
        area would move with another.
        """
        return "two or more examples of each class" if self.has_interval else None

    def is_enough(self, totals: Tensor) -> bool:
        """Return whether there are two examples of each class, for an area that has an interval."""
        return not self.has_interval or float(totals.reshape(self.columns, 2, BINS)[-1].sum(1).min()) > 1

    def _area(self, counts: Tensor) -> float | None:
        """Return the area for the counts of one column [2, n]; None without examples of both labels."""
        from sklearn.metrics import average_precision_score, roc_auc_score

        if not bool((counts.sum(1) > 0).all()):
            return None
        label, score = counts.nonzero(as_tuple=True)
        area = roc_auc_score if self.curve == "roc" else average_precision_score
        return float(area(label.numpy(), score.numpy(), sample_weight=counts[label, score].numpy()))


def _log_odds(scores: Tensor) -> Tensor:
    """Return log(p / (1 - p)) of each class [B, C], where p is the softmax of the scores [B, C]."""
    inside = torch.stack(
        [torch.cat([scores[:, :c], scores[:, c + 1 :]], 1).logsumexp(1) for c in range(scores.shape[1])], 1
    )
    return scores - inside


def _bins(scores: Tensor, flags: Tensor) -> Tensor:
    """Return the number of each rounded score among all of them in order, int64 [B, C].

    A score that is NaN was no prediction: it counts as the worst one, lowest for a positive and highest for another.
    """
    clean = torch.where(scores.isnan(), torch.where(flags, -math.inf, math.inf), scores.double())
    half = clean.clamp(-65504, 65504).to(torch.float16)
    bits = (half + 0.0).view(torch.int16).long() & 0xFFFF  # -0 becomes 0
    ordered = torch.where(bits >= 0x8000, 0xFFFF - bits, bits + 0x8000)
    return ordered >> DROPPED_BITS
