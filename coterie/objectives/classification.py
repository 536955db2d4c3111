"""Cross-entropy and accuracy, for one label per example or one at every position.

Legend: B batch, C classes, T positions. Outputs are [B, C] with y [B], or [B, T, C] with y [B, T]; a label of -100
marks a position that does not count (padding), as in `torch.nn.functional.cross_entropy`. So the classes come last,
where PyTorch's own losses expect them in the second dimension; other shapes are refused, never guessed.
"""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional as F

from coterie.core.errors import Mistake

IGNORE = -100
LABEL_TYPES = (torch.int64, torch.uint8)
"""The types of whole number that cross-entropy takes."""
MIN_CLASSES = 2
"""Fewer cannot be told apart."""


def cross_entropy(outputs: Tensor, y: Tensor) -> tuple[Tensor, Tensor]:
    """Return -log p(y): its sum over an example's positions [B], and how many positions count [B].

    Raises:
        Mistake: the examples have no labels, or these do not fit the outputs.
    """
    require_fit(outputs, y)
    y = y.long()  # bytes cannot be batched over clients, and in them 156 is -100
    losses = F.cross_entropy(outputs.movedim(-1, 1), y, ignore_index=IGNORE, reduction="none")
    return _sum_positions(losses), _sum_positions((y != IGNORE).to(losses.dtype))


def accuracy(outputs: Tensor, y: Tensor) -> tuple[Tensor, Tensor]:
    """Return at how many positions the likeliest class is the label [B], and how many positions count [B].

    Where the likeliest class has no finite score, as in outputs with NaN, nothing was predicted, and that is wrong.

    Raises:
        Mistake: the examples have no labels, or these do not fit the outputs.
    """
    require_fit(outputs, y)
    y = y.long()
    counts = y != IGNORE
    likeliest = outputs.argmax(-1, keepdim=True)  # the place of a NaN, if there is one
    predicted = outputs.gather(-1, likeliest).squeeze(-1).isfinite()
    right = (likeliest.squeeze(-1) == y) & counts & predicted
    return _sum_positions(right.to(outputs.dtype)), _sum_positions(counts.to(outputs.dtype))


def require_fit(outputs: Tensor, y: Tensor | None) -> None:
    """Refuse outputs and labels that are not scores of classes, and one class for each of them.

    Raises:
        Mistake: there are no labels, or they do not fit; the sentence says how to make them fit.
    """
    problem = _misfit(outputs, require_labels(y))
    if problem is not None:
        raise Mistake(problem)


def require_labels(y: Tensor | None) -> Tensor:
    """Return the labels; refuse to go on without. An algorithm that needs none does not call this.

    Raises:
        Mistake: there are none.
    """
    if y is None:
        raise Mistake("there are no labels to learn from or to test on; give some, or an algorithm that needs none")
    return y


def tells_classes_apart(outputs: object, y: Tensor | None) -> bool:
    """Return whether the likeliest class means something: there are several, and a whole number is each one's label.

    >>> import torch
    >>> scores, classes = torch.randn(4, 3), torch.tensor([0, 1, 2, 0])
    >>> tells_classes_apart(scores, classes), tells_classes_apart(scores[:, :1], classes)
    (True, False)
    """
    return isinstance(outputs, Tensor) and y is not None and _misfit(outputs, y) is None and _in_range(outputs, y)


def _in_range(outputs: Tensor, y: Tensor) -> bool:
    """Return whether no label is beyond the classes."""
    return not y.numel() or int(y.max()) < outputs.shape[-1]


def _misfit(outputs: Tensor, y: Tensor) -> str | None:
    """Return why labels do not fit outputs, and what to do; None where they fit."""
    if y.dtype not in LABEL_TYPES:
        return f"the labels are {_type_name(y)}; for classes they must be whole numbers of int64: y.long()"
    if y.shape != outputs.shape[:-1]:
        return _misfit_of_shapes(outputs, y)
    if outputs.shape[-1] < MIN_CLASSES:
        return (
            "the model gives one output, which cannot tell classes apart by cross-entropy; let it give one output for "
            "each class, or give a loss of your own"
        )
    return None


def _misfit_of_shapes(outputs: Tensor, y: Tensor) -> str:
    """Return how outputs and labels of these shapes can be made to fit."""
    theirs, ours = list(outputs.shape), list(y.shape)
    if y.dim() == outputs.dim() and y.shape[:-1] == outputs.shape[:-1] and y.shape[-1] == 1:
        return f"the labels have shape {ours} for outputs {theirs}; take away their last dimension: y.squeeze(-1)"
    if outputs.dim() < MIN_CLASSES:
        return (
            f"the outputs have shape {theirs}, one number for each example, which cannot tell classes apart by "
            "cross-entropy; let the model give one output for each class, [B, C], or give a loss of your own"
        )
    if ours == theirs:
        return (
            f"outputs and labels both have shape {ours}, where a label must be the number of one class; for labels "
            "with a single 1 in each row give y.argmax(-1), and for several labels an example a loss of your own"
        )
    if outputs.dim() > MIN_CLASSES and y.shape == outputs.shape[:1] + outputs.shape[2:]:
        return (
            f"the outputs have shape {theirs} for labels {ours}: the classes must come last; set the model's "
            "attribute class_axis = 1, or end its forward with .movedim(1, -1)"
        )
    return (
        f"outputs of shape {theirs} do not fit labels of shape {ours}; it must be that of the labels, with the "
        "classes last"
    )


def _type_name(y: Tensor) -> str:
    return str(y.dtype).removeprefix("torch.")


def _sum_positions(values: Tensor) -> Tensor:
    return values.flatten(1).sum(1) if values.dim() > 1 else values
