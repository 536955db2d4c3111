"""The loss of a task, by its name and options, or from the user's own function or module of PyTorch.

Legend: C classes, L labels of an example.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from coterie.core.errors import Mistake
from coterie.core.registry import OWN_FUNCTION, import_own
from coterie.core.task import Score
from coterie.core.task_options import TaskOptions
from coterie.core.toml_text import toml_text
from coterie.objectives.classification import IGNORE, cross_entropy, require_labels
from coterie.objectives.flags import FlagLoss
from coterie.objectives.kinds import CLASSES, FLAGS, Kind
from coterie.objectives.loss_modules import ModuleLoss
from coterie.objectives.numbers import NumberLoss


@dataclass(frozen=True)
class IgnoringScore:
    """A score of classes in which a further label counts for nothing, as -100 does."""

    score: Score
    ignore_index: int

    def __call__(self, outputs: Tensor, y: Tensor | None) -> tuple[Tensor, Tensor]:
        """Return the score's sums [B] and counts [B]."""
        y = require_labels(y).long()
        return self.score(outputs, torch.where(y == self.ignore_index, IGNORE, y))


def make_loss(kind: Kind, options: TaskOptions, weights: Sequence[float] | None = None) -> Score:
    """Return the loss of a task.

    Args:
        kind: of the task.
        options: its loss and the options of it.
        weights: the class weights as numbers, where `options` has "balanced".

    Raises:
        Mistake: there is no such loss, or it does not take an option.
    """
    name = options.loss or kind.losses[0]
    if ":" in name:
        refuse_options(options, f"the loss {name}", ("class_weights", "label_smoothing"))
        return as_loss(import_own("loss", name))
    if name not in kind.losses:
        allowed = f"for the kind {toml_text(kind.name)} one of {', '.join(kind.losses)}, or {OWN_FUNCTION}"
        raise Mistake(key="loss", value=name, allowed=allowed)
    if weights is None and isinstance(options.class_weights, list | tuple):
        weights = list(options.class_weights)
    given = None if weights is None else torch.tensor(weights, dtype=torch.float64)
    smoothing, ignored = options.label_smoothing or 0.0, options.ignore_index
    if kind.labels == FLAGS:
        return FlagLoss(kind, given, smoothing, ignored)
    if kind.labels == CLASSES:
        if given is None and not smoothing:
            return cross_entropy if ignored in (None, IGNORE) else IgnoringScore(cross_entropy, ignored)
        ignored = IGNORE if ignored is None else ignored
        return ModuleLoss(nn.CrossEntropyLoss(given, ignore_index=ignored, label_smoothing=smoothing))
    refuse_options(options, f"the loss {name}", ("class_weights", "label_smoothing"))
    return NumberLoss(name, ignored)


def as_loss(value: Any) -> Score:
    """Return a loss as a score: PyTorch's modules are converted, a class is called without arguments.

    Raises:
        Mistake: a module cannot be converted exactly.
    """
    value = value() if isinstance(value, type) else value
    return ModuleLoss(value) if isinstance(value, nn.Module) else value


def place_loss(loss: Score, device: torch.device, dtype: torch.dtype) -> Score:
    """Return a loss with its own numbers on a device, in a type of number."""
    if isinstance(loss, ModuleLoss):
        return loss.to(device, dtype)
    if isinstance(loss, FlagLoss) and loss.class_weights is not None:
        return FlagLoss(loss.kind, loss.class_weights.to(device, dtype), loss.label_smoothing, loss.ignore_index)
    return loss


def check_weights(kind: Kind, weights: Sequence[float] | None, outputs: int | None) -> None:
    """Refuse class weights that are more or fewer than the classes, or of a multilabel task the labels.

    Raises:
        Mistake: they are.
    """
    wanted = 2 if kind.name == "binary" else outputs
    if weights is not None and wanted is not None and len(weights) != wanted:
        what = "labels" if kind.name == "multilabel" else "classes"
        raise Mistake(key="class_weights", value=list(weights), allowed=f"{wanted} numbers, one for each of the {what}")


def balance_weights(kind: Kind, counts: Sequence[Sequence[int]]) -> list[float]:
    """Return the class weights that make all classes count alike.

    Of classes: n / (C n_c), as scikit-learn's "balanced" has it; a class without examples gets 1. Of a multilabel task:
    the negatives over the positives of each label.

    Args:
        kind: of the task.
        counts: of classes [1, C], or of a multilabel task [2, L]: how many are 0, and how many are 1.

    >>> from coterie.objectives.kinds import KINDS
    >>> balance_weights(KINDS["classification"], [[30, 10]])
    [0.6666666666666666, 2.0]
    """
    if kind.name == "multilabel":
        return [zeros / ones if ones and zeros else 1.0 for zeros, ones in zip(*counts, strict=True)]
    (numbers,) = counts
    total, classes = sum(numbers), len(numbers)
    return [total / (classes * n) if n else 1.0 for n in numbers]


def count_labels(kind: Kind, y: Tensor, outputs: int, ignore_index: int | None) -> Tensor:
    """Return how often each label occurs among y [n, ...]: int64 [1, C], or of a multilabel task [2, L]."""
    if kind.name == "multilabel":
        known = torch.ones_like(y, dtype=torch.bool) if ignore_index is None else y != ignore_index
        return torch.stack([((y == flag) & known).sum(0) for flag in (0, 1)])
    flat = y.reshape(-1).long()
    known = (flat >= 0) if ignore_index is None else (flat >= 0) & (flat != ignore_index)
    return torch.bincount(flat[known], minlength=2 if kind.name == "binary" else outputs)[None]


def refuse_options(options: TaskOptions, loss: str, names: Sequence[str]) -> None:
    """Refuse options that a loss does not take.

    Raises:
        Mistake: one of them, `names`, is given.
    """
    for name in names:
        value = getattr(options, name)
        if value is not None and value != 0.0:
            raise Mistake(f"{loss} does not take it; leave it out", key=name, value=value)
