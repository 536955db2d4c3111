"""The kinds of task: what their labels are, how many outputs a model needs for them, and how the two fit together.

    kind            labels y                            outputs                     number of outputs
    classification  [B], the number of a class          [B, C]                      C
    binary          [B], 0 or 1                         [B] or [B, 1], a logit      1
    multilabel      [B, L], each 0 or 1                 [B, L], logits              L
    regression      [B] or [B, L], numbers              [B], [B, 1] or [B, L]       1 or L
    segmentation    [B, H, W], a class for each pixel   [B, H, W, C]                C
    sequence        [B, T], a class at each position    [B, T, C]                   C

Classes come last. `coterie.loop.class_order` brings outputs in PyTorch's order, [B, C, ...], into this one.

Legend: B batch, C classes, L labels of an example, T positions, H x W pixels.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import get_args

import torch
from torch import Tensor

from coterie.core.errors import Mistake
from coterie.core.task_options import KindName
from coterie.objectives.classification import require_fit, require_labels


@dataclass(frozen=True)
class Kind:
    """A kind of task.

    Attributes:
        name: what a file calls it.
        labels: "classes", of which one is right at each place; "flags", each of which is true or false; or "numbers".
        losses: the names of its losses; the first is the default.
        metrics: the names of what is measured where nothing is chosen.
        dims: how many dimensions the labels of one example may have.
    """

    name: KindName
    labels: str
    losses: Sequence[str]
    metrics: Sequence[str]
    dims: Sequence[int]


CLASSES, FLAGS, NUMBERS = "classes", "flags", "numbers"
REGRESSION_LOSSES = ("mse", "l1", "huber", "smooth_l1")

KINDS: dict[str, Kind] = {
    kind.name: kind
    for kind in (
        Kind("classification", CLASSES, ["cross_entropy"], ["accuracy"], [0]),
        Kind("binary", FLAGS, ["bce"], ["accuracy"], [0]),
        Kind("multilabel", FLAGS, ["bce"], ["accuracy"], [1]),
        Kind("regression", NUMBERS, REGRESSION_LOSSES, ["rmse", "mae"], [0, 1]),
        Kind("segmentation", CLASSES, ["cross_entropy"], ["accuracy"], [2, 3]),
        Kind("sequence", CLASSES, ["cross_entropy"], ["accuracy"], [1]),
    )
}
"""Every kind by its name."""
assert tuple(KINDS) == get_args(KindName)

SHAPES = {
    "classification": "one label for each example, [n]",
    "binary": "one label for each example, [n]",
    "multilabel": "a row of labels for each example, [n, L]",
    "regression": "one number for each example, [n], or several, [n, L]",
    "segmentation": "a label for each pixel, [n, H, W]",
    "sequence": "a label at each position, [n, T]",
}


def find_kind(name: str) -> Kind:
    """Return the kind called `name`.

    Raises:
        Mistake: there is none.
    """
    if name not in KINDS:
        raise Mistake(key="kind", value=name, allowed=f"one of {', '.join(KINDS)}")
    return KINDS[name]


def kind_of_labels(x: Tensor, y: Tensor) -> Kind:
    """Return the kind that labels [n, ...] leave no doubt about.

    Numbers that are not whole are those of a regression. Whole numbers are classes: one for each example, at each
    position or pixel. Rows of 0 and 1 may be a multilabel task or sequences of two classes, and floats that are all
    whole may be classes or numbers.

    Args:
        x: the examples, or a pool that they are from. y: their labels.

    Raises:
        Mistake: there is a doubt; the sentence asks for the kind.

    >>> kind_of_labels(torch.zeros(2, 3), torch.tensor([0.5, 2.0])).name
    'regression'
    >>> kind_of_labels(torch.zeros(2, 3), torch.tensor([0, 2])).name
    'classification'
    """
    if y.is_floating_point():
        if y.numel() and bool((y == y.round()).all()):
            type_name = str(y.dtype).removeprefix("torch.")
            raise Mistake(
                f"the labels are {type_name}; for classes they must be whole numbers of int64: y.long(); all of them "
                'are whole, so for numbers to predict choose the kind "regression", and for 0 and 1 "binary" or '
                '"multilabel"'
            )
        return KINDS["regression"]
    if y.dim() == 2 and y.numel() and int(y.min()) >= 0 and int(y.max()) == 1 and x.shape[1:2] != y.shape[1:]:
        raise Mistake(
            f"the labels are rows of 0 and 1, of shape {list(y.shape)}, which can be several labels for each example "
            'or a sequence of two classes; choose the kind "multilabel" or "sequence"'
        )
    by_dims = {1: "classification", 2: "sequence"}
    return KINDS[by_dims.get(y.dim(), "segmentation")]


def count_outputs(kind: Kind, y: Tensor, num_classes: int | None) -> int | None:
    """Return how many outputs a model needs for labels y [n, ...]; None where classes are and nobody counted them."""
    if kind.labels == CLASSES:
        return num_classes
    return 1 if y.dim() == 1 else y.shape[1]


def check_labels(kind: Kind, y: Tensor, ignore_index: int | None = None) -> None:
    """Refuse labels y [n, ...] that the kind cannot have.

    Raises:
        Mistake: they have another shape or type, or other values; the sentence says what they must be.
    """
    shape, type_name = list(y.shape), str(y.dtype).removeprefix("torch.")
    if y.dim() - 1 not in kind.dims:
        raise Mistake(f"the labels have shape {shape}; {_a(kind)} needs {SHAPES[kind.name]}")
    if kind.labels == CLASSES and (y.is_floating_point() or y.dtype == torch.bool):
        raise Mistake(f"the labels are {type_name}; {_a(kind)} needs whole numbers of int64, from 0: y.long()")
    if kind.labels == FLAGS:
        fine = (y == 0) | (y == 1)
        fine = fine if ignore_index is None else fine | (y == ignore_index)
        if not bool(fine.all()):
            wrong = y[~fine][0].item()
            hint = "" if ignore_index is not None else "; say which number marks an unknown label: `ignore_index`"
            raise Mistake(f"a label is {wrong:g}; {_a(kind)} needs 0 or 1{hint if wrong < 0 or wrong != wrong else ''}")
    if kind.labels == NUMBERS:
        if y.is_complex():
            raise Mistake(f"the labels are {type_name}; {_a(kind)} needs real numbers")
        if not bool(torch.isfinite(y).all()):
            raise Mistake(f"a label is not a finite number; {_a(kind)} needs a finite number in every row")


def fit(kind: Kind, outputs: Tensor, y: Tensor | None) -> tuple[Tensor, Tensor]:
    """Return outputs and labels in one form: classes as they are; flags and numbers with a number for each label.

    Of flags and numbers, outputs [B, 1] for labels [B] become [B], and the labels get the type of the outputs.

    Raises:
        Mistake: they do not fit; the sentence says what to do.
    """
    if kind.labels == CLASSES:
        require_fit(outputs, y)
        return outputs, require_labels(y)
    y = require_labels(y)
    if not isinstance(outputs, Tensor):
        raise Mistake(f"its forward returns a {type(outputs).__name__}; it must return one tensor of numbers")
    if outputs.shape != y.shape:
        per_example = math.prod(y.shape[1:])
        if len(outputs) != len(y) or outputs.numel() != len(y) * per_example or per_example != 1:
            wanted = "one output" if per_example == 1 else f"{per_example} outputs"
            raise Mistake(
                f"the outputs have shape {list(outputs.shape)} for labels {list(y.shape)}; {_a(kind)} needs {wanted} "
                "for each example: let the model take num_classes, which is their number"
            )
        outputs = outputs.reshape(y.shape)
    return outputs, y.to(outputs.dtype)


def _a(kind: Kind) -> str:
    return f"a {kind.name}" + (" task" if kind.name in ("binary", "multilabel", "sequence") else "")
