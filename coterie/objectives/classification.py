"""Cross-entropy and accuracy, for one label an example or one at every position.

Legend: B batch, C classes, T positions. Outputs are [B, C] with y [B], or [B, T, C] with y [B, T]; a label of -100
marks a position that does not count (padding), as in `torch.nn.functional.cross_entropy`.
"""

from __future__ import annotations

from torch import Tensor
from torch.nn import functional as F

from coterie.core.errors import Mistake

IGNORE = -100


def cross_entropy(outputs: Tensor, y: Tensor) -> tuple[Tensor, Tensor]:
    """-log p(y): its sum over an example's positions [B], and how many positions count [B].

    Raises:
        Mistake: the examples have no labels.
    """
    _labelled(y)
    losses = F.cross_entropy(outputs.movedim(-1, 1), y, ignore_index=IGNORE, reduction="none")
    return _per_example(losses), _per_example((y != IGNORE).to(losses.dtype))


def accuracy(outputs: Tensor, y: Tensor) -> tuple[Tensor, Tensor]:
    """How many positions have their label as the likeliest class [B], and how many count [B].

    Raises:
        Mistake: the examples have no labels.
    """
    _labelled(y)
    counts = y != IGNORE
    right = (outputs.argmax(-1) == y) & counts
    return _per_example(right.to(outputs.dtype)), _per_example(counts.to(outputs.dtype))


def _labelled(y: Tensor | None) -> None:
    if y is None:  # which an algorithm that needs none would not have given
        raise Mistake("there are no labels to learn from or to test on; give some, or an algorithm that needs none")


def _per_example(values: Tensor) -> Tensor:
    return values.flatten(1).sum(1) if values.dim() > 1 else values
