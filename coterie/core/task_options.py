"""What a model is asked to do, as plain options: the table [task] of a file, and `coterie.plan(task=...)`.

This file needs no PyTorch, so that a file's settings can be read without it.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Literal

from coterie.core.errors import require

KindName = Literal["classification", "binary", "multilabel", "regression", "segmentation", "sequence"]


@dataclass(frozen=True)
class TaskOptions:
    """[task]: the kind of task, and its loss.

    Attributes:
        kind: "classification", "binary", "multilabel", "regression", "segmentation" or "sequence"; see
            `coterie.objectives.kinds`. By default it follows from the labels, where they leave no doubt.
        loss: the name of one of the kind's losses, or "package.module:function" for one of the user's own.
        class_weights: how much the examples of each class count: numbers, or "balanced", which is computed from one
            count of the labels over all clients. Of a multilabel task: one number for each label, how much its
            positive examples count.
        label_smoothing: the share of each label that is spread evenly over the classes, from 0 to below 1.
        ignore_index: a label that counts for nothing; -100 does where labels are classes.

    Raises:
        Mistake: a number is out of range.

    >>> TaskOptions(kind="binary").loss is None
    True
    """

    kind: KindName | None = None
    loss: str | None = None
    class_weights: Literal["balanced"] | list[float] | None = None
    label_smoothing: float | None = None
    ignore_index: int | None = None

    def __post_init__(self) -> None:
        smoothing = self.label_smoothing
        if smoothing is not None:
            require("label_smoothing", smoothing, 0 <= smoothing < 1, "a number from 0 to below 1")
        weights = self.class_weights
        if isinstance(weights, list | tuple):
            right = bool(weights) and all(math.isfinite(w) and w >= 0 for w in weights) and max(weights) > 0
            allowed = 'a number of 0 or more for each class, not all of them 0, or "balanced"'
            require("class_weights", list(weights), right, allowed)
