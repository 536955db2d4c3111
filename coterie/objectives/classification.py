"""Cross-entropy and accuracy, for one label per example or one at every position.

Legend: B batch, C classes, T positions. Outputs are [B, C] with y [B], or [B, T, C] with y [B, T]; a label of -100
marks a position that does not count (padding), as in `torch.nn.functional.cross_entropy`.
"""

from __future__ import annotations

from torch import Tensor
from torch.nn import functional as F

from coterie.core.errors import Mistake

IGNORE = -100


def cross_entropy(outputs: Tensor, y: Tensor) -> tuple[Tensor, Tensor]:
    """Return -log p(y): its sum over an example's positions [B], and how many positions count [B].

    Raises:
        Mistake: the examples have no labels.
    """
    _require_labels(y)
    losses = F.cross_entropy(outputs.movedim(-1, 1), y, ignore_index=IGNORE, reduction="none")
    return _sum_positions(losses), _sum_positions((y != IGNORE).to(losses.dtype))


def accuracy(outputs: Tensor, y: Tensor) -> tuple[Tensor, Tensor]:
    """Return at how many positions the likeliest class is the label [B], and how many positions count [B].

    Where the likeliest class has no finite score, as in outputs with NaN, nothing was predicted, and that is wrong.

    Raises:
        Mistake: the examples have no labels.
    """
    _require_labels(y)
    counts = y != IGNORE
    likeliest = outputs.argmax(-1, keepdim=True)  # the place of a NaN, if there is one
    predicted = outputs.gather(-1, likeliest).squeeze(-1).isfinite()
    right = (likeliest.squeeze(-1) == y) & counts & predicted
    return _sum_positions(right.to(outputs.dtype)), _sum_positions(counts.to(outputs.dtype))


def _require_labels(y: Tensor | None) -> None:
    if y is None:  # an algorithm that needs no labels does not call this
        raise Mistake("there are no labels to learn from or to test on; give some, or an algorithm that needs none")


def _sum_positions(values: Tensor) -> Tensor:
    return values.flatten(1).sum(1) if values.dim() > 1 else values
