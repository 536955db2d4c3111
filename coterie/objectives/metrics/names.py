"""Metrics by the names that `[evaluate] metrics` takes, and what each kind of task can be measured by.

torchmetrics computes all but means and areas under curves, with its own conventions: of classes and of several labels,
f1, precision, recall, specificity, iou and dice are means over the classes or labels ("macro").

Legend: C classes, L labels of an example.
"""

from __future__ import annotations

import functools
import math
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

from coterie.core.errors import Mistake
from coterie.core.registry import OWN_FUNCTION, import_own, nearest
from coterie.core.task import Metric, Score
from coterie.objectives.classification import accuracy, cross_entropy
from coterie.objectives.flags import FlagAccuracy
from coterie.objectives.kinds import CLASSES, FLAGS, NUMBERS, Kind
from coterie.objectives.metrics.curves import MAX_COLUMNS, AreaUnderCurve
from coterie.objectives.metrics.of_means import OfMean
from coterie.objectives.metrics.of_torchmetrics import OfColumns, SummedMetric, is_torchmetric, make
from coterie.objectives.metrics.predictions import predict
from coterie.objectives.numbers import NumberLoss


class Entry(NamedTuple):
    """A metric by name.

    Attributes:
        labels: for which labels it is there: classes, flags or numbers.
        place: "module:class" of torchmetrics, where {} is Multiclass, Binary or Multilabel; empty for those made here.
        options: further arguments of that class.
        higher_is_better: whether a larger value is a better one.
    """

    labels: Sequence[str]
    place: str = ""
    options: Mapping[str, Any] = {}
    higher_is_better: bool = True


_BOTH = (CLASSES, FLAGS)
_MACRO = {"average": "macro"}

METRICS: dict[str, Entry] = {
    "accuracy": Entry(_BOTH),
    "balanced_accuracy": Entry(_BOTH, "classification:MulticlassAccuracy", _MACRO),
    "f1": Entry(_BOTH, "classification:{}F1Score", _MACRO),
    "precision": Entry(_BOTH, "classification:{}Precision", _MACRO),
    "recall": Entry(_BOTH, "classification:{}Recall", _MACRO),
    "specificity": Entry(_BOTH, "classification:{}Specificity", _MACRO),
    "mcc": Entry(_BOTH, "classification:{}MatthewsCorrCoef"),
    "iou": Entry(_BOTH, "classification:{}JaccardIndex", _MACRO),
    "dice": Entry(_BOTH, "classification:{}F1Score", _MACRO),
    "auroc": Entry(_BOTH),
    "average_precision": Entry(_BOTH),
    "perplexity": Entry([CLASSES], higher_is_better=False),
    "rmse": Entry([NUMBERS], higher_is_better=False),
    "mse": Entry([NUMBERS], higher_is_better=False),
    "mae": Entry([NUMBERS], higher_is_better=False),
    "r2": Entry([NUMBERS], "regression:R2Score"),
    "mape": Entry([NUMBERS], "regression:MeanAbsolutePercentageError", {}, higher_is_better=False),
}
"""Every metric that has a name."""


def make_metric(name: str, kind: Kind, outputs: int, ignore_index: int | None = None) -> Score | Metric:
    """Return the metric called `name` for a kind of task.

    Args:
        name: one of `METRICS`, or "package.module:function": a `Score`, a `Metric`, or a metric of torchmetrics.
        kind: what the labels are.
        outputs: how many outputs the model has: C, 1 or L.
        ignore_index: a label that counts for nothing, besides -100 of classes.

    Raises:
        Mistake: there is no such metric, not for this kind, or a package that it needs is not installed.
    """
    if ":" in name:
        return as_measure(_instance(import_own("metrics", name)))
    if name not in METRICS:
        near = nearest(name, METRICS)
        hint = f'did you mean "{near}"? It must be' if near else "it must be"
        fitting = ", ".join(known for known, entry in METRICS.items() if kind.labels in entry.labels)
        raise Mistake(f"{hint} one of {fitting}, or {OWN_FUNCTION}", key="metrics", value=name)
    entry = METRICS[name]
    if kind.labels not in entry.labels:
        fitting = ", ".join(known for known, each in METRICS.items() if kind.labels in each.labels)
        raise Mistake(f"a {kind.name} task is not measured by it, but by one of {fitting}", key="metrics", value=name)
    if entry.place:
        return _of_torchmetrics(name, entry, kind, outputs, ignore_index)
    return _of_ours(name, kind, outputs, ignore_index)


def _of_ours(name: str, kind: Kind, outputs: int, ignore_index: int | None) -> Score | Metric:
    """Return a metric that is a mean, a function of one, or an area under a curve."""
    if name == "accuracy":
        return FlagAccuracy(kind, ignore_index) if kind.labels == FLAGS else _without(accuracy, ignore_index)
    if name in ("mse", "mae"):
        return NumberLoss({"mse": "mse", "mae": "l1"}[name], ignore_index)
    if name == "rmse":
        return OfMean(NumberLoss("mse", ignore_index), math.sqrt)
    if name == "perplexity":
        return OfMean(_without(cross_entropy, ignore_index), math.exp)
    if outputs > MAX_COLUMNS:
        sentence = f"it would count {outputs} curves, and at most {MAX_COLUMNS} are counted; choose accuracy or f1"
        raise Mistake(sentence, key="metrics", value=name)
    return AreaUnderCurve("roc" if name == "auroc" else "precision_recall", kind, outputs, ignore_index)


def _without(score: Score, ignore_index: int | None) -> Score:
    """Return a score of classes that leaves out a further label."""
    from coterie.objectives.task_losses import IgnoringScore

    return score if ignore_index in (None, -100) else IgnoringScore(score, ignore_index)


def _of_torchmetrics(name: str, entry: Entry, kind: Kind, outputs: int, ignore_index: int | None) -> Metric:
    """Return a metric of torchmetrics, for predictions of this kind."""
    options: dict[str, Any] = {}
    predictions = functools.partial(_predict, kind, ignore_index)
    if kind.labels == NUMBERS:
        needs = "two examples or more, with finite outputs"
        if outputs > 1:
            return OfColumns(SummedMetric(make(name, entry.place), name=name, needs=needs), outputs, predictions)
        return SummedMetric(make(name, entry.place), predictions, name, needs)
    if kind.name == "binary":
        if name == "balanced_accuracy":
            options = {"num_classes": 2, **entry.options}
    elif kind.name == "multilabel":
        if name == "balanced_accuracy":
            sentence = "of several labels there is none; choose accuracy, recall or specificity"
            raise Mistake(sentence, key="metrics", value=name)
        options = {"num_labels": outputs, **entry.options, "ignore_index": -1}
    else:
        options = {"num_classes": outputs, **entry.options}
    form = {"binary": "Binary", "multilabel": "Multilabel"}.get(kind.name, "Multiclass")
    metric = make(name, entry.place.format(form), **options)
    return SummedMetric(metric, predictions, name)


def _predict(kind: Kind, ignore_index: int | None, outputs: Any, y: Any) -> Any:
    return predict(kind, outputs, y, ignore_index)


def as_measure(value: Any) -> Score | Metric:
    """Return a measure as the loop takes it: a metric of torchmetrics becomes one of ours.

    Raises:
        Mistake: a metric of torchmetrics cannot be added up.
    """
    return SummedMetric(value) if is_torchmetric(value) else value


def _instance(value: Any) -> Any:
    """Return what a user's name stands for; a class is called without arguments."""
    return value() if isinstance(value, type) else value


def metric_direction(name: str, metric: object = None) -> bool:
    """Return whether a larger value of a metric is a better one; of a loss it is not.

    Args:
        name: as in a file, or what a user calls their own.
        metric: the metric itself; one without `higher_is_better` is taken for one whose larger values are better.
    """
    if name == "loss":
        return False
    if name in METRICS:
        return METRICS[name].higher_is_better
    return bool(getattr(metric, "higher_is_better", True))


def is_better(value: float, than: float, higher: bool) -> bool:
    """Return whether a value is better than another one."""
    return value > than if higher else value < than


def short_name(name: str) -> str:
    """Return what a record calls a metric: its name, or of "package.module:function" the function's.

    >>> short_name("auroc"), short_name("mine.metrics:gini")
    ('auroc', 'gini')
    """
    return name.rpartition(":")[2]
