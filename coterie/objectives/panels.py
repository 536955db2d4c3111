"""What a report shows of a model's predictions on test data, by the kind of task, as small plain values.

    binary          the ROC curve, and how often each predicted probability came true; of two classes too
    regression      predicted against true, of some examples
    multilabel      measures of each label
    segmentation    some pictures with their labels and with the predictions

They are bounded in size, whatever the number of test examples. Examples whose outputs are not finite are left out.

Legend: M test examples, L labels of an example, H x W pixels, Z slices of a volume.
"""

from __future__ import annotations

import base64
import math
from typing import Any

import torch
from torch import Tensor

from coterie.core.examples import Examples
from coterie.objectives.classification import IGNORE, require_labels
from coterie.objectives.kinds import CLASSES, Kind, fit
from coterie.objectives.metrics.curves import AreaUnderCurve

PANEL_KINDS = ("binary", "regression", "multilabel", "segmentation")
TWO_CLASSES = 2
MAX_POINTS, MAX_COLUMNS, MAX_LABELS = 500, 4, 100
CURVE_POINTS, CALIBRATION_BINS = 200, 10
MAX_PICTURES, MAX_SIDE = 3, 64
NO_CLASS = 255
"""In the classes of a picture: a pixel that counts for nothing."""


def choose_rows(kind: Kind, examples: int) -> Tensor:
    """Return which of M test examples a panel is made from: of pictures a few, evenly spaced; of all else all."""
    if kind.name != "segmentation":
        return torch.arange(examples)
    return torch.linspace(0, examples - 1, min(MAX_PICTURES, examples)).long()


def describe_panel(kind: Kind, examples: Examples, outputs: Tensor, ignore_index: int | None) -> dict[str, Any]:
    """Return the panel of a kind of task; empty where nothing can be shown.

    Args:
        kind: of the task.
        examples: with labels [M, ...].
        outputs: of the model [M, ...], on the CPU.
        ignore_index: a label that counts for nothing.
    """
    if kind.labels == CLASSES and kind.name != "segmentation":
        return _of_two_classes(outputs, require_labels(examples.labels()), ignore_index)
    if kind.name == "segmentation":
        x, y = examples.tensors()
        return _pictures(x, outputs, require_labels(y), ignore_index)
    outputs, y = (v.double().reshape(len(v), -1) for v in fit(kind, outputs, examples.labels()))  # [M, L]
    known = torch.isfinite(outputs) & (y != ignore_index if ignore_index is not None else torch.ones_like(y).bool())
    if kind.name == "regression":
        return _points(outputs, y, known)
    if kind.name == "binary":
        return _curves(outputs[known], y[known])
    columns = [(outputs[known[:, k], k], y[known[:, k], k]) for k in range(min(y.shape[1], MAX_LABELS))]
    return {"labels": [_label(kind, *column) for column in columns]}


def _curves(logits: Tensor, y: Tensor) -> dict[str, Any]:
    """Return the ROC curve and the calibration of logits [M] for labels [M]; empty without both labels."""
    from sklearn.metrics import roc_curve

    if not 0 < float(y.sum()) < len(y):
        return {}
    false_positive, true_positive, _ = roc_curve(y.numpy(), logits.numpy())
    places = torch.linspace(0, len(false_positive) - 1, min(CURVE_POINTS, len(false_positive))).round().long()
    probability = logits.sigmoid()
    bins = (probability * CALIBRATION_BINS).long().clamp(max=CALIBRATION_BINS - 1)
    calibration = [
        {
            "examples": int((bins == k).sum()),
            "predicted": float(probability[bins == k].mean()),
            "observed": float(y[bins == k].mean()),
        }
        for k in range(CALIBRATION_BINS)
        if bool((bins == k).any())
    ]
    return {
        "examples": len(y),
        "false_positive": [float(false_positive[k]) for k in places],
        "true_positive": [float(true_positive[k]) for k in places],
        "calibration": calibration,
    }


def _of_two_classes(outputs: Tensor, y: Tensor, ignore_index: int | None) -> dict[str, Any]:
    """Return the panel of scores [M, ..., 2] of two classes: their difference is the logit of the second.

    Empty for more classes.
    """
    if outputs.shape[-1] != TWO_CLASSES:
        return {}
    logits, y = (outputs[..., 1] - outputs[..., 0]).double().flatten(), y.flatten()
    known = logits.isfinite() & (y != IGNORE) & (y != (IGNORE if ignore_index is None else ignore_index))
    return _curves(logits[known], y[known].double())


def _points(outputs: Tensor, y: Tensor, known: Tensor) -> dict[str, Any]:
    """Return true and predicted numbers of up to 500 examples, evenly spaced, for up to 4 columns [M, L]."""
    columns = []
    for k in range(min(y.shape[1], MAX_COLUMNS)):
        true, predicted = y[known[:, k], k], outputs[known[:, k], k]
        if len(true):
            places = torch.linspace(0, len(true) - 1, min(MAX_POINTS, len(true))).round().long()
            columns.append({"column": k, "true": true[places].tolist(), "predicted": predicted[places].tolist()})
    return {"examples": len(y), "columns": columns} if columns else {}


def _label(kind: Kind, logits: Tensor, y: Tensor) -> dict[str, Any]:
    """Return the measures of one label, for logits [M] and flags [M]; None for what is not defined."""
    predicted, true = logits > 0, y > 0
    hits, claims, there = (int(v.sum()) for v in (predicted & true, predicted, true))
    metric = AreaUnderCurve("roc", kind, 1)
    area = metric.value(metric.totals(logits[:, None], y[:, None])) if len(y) else math.nan
    return {
        "examples": len(y),
        "positives": there,
        "accuracy": float((predicted == true).double().mean()) if len(y) else None,
        "precision": hits / claims if claims else None,
        "recall": hits / there if there else None,
        "f1": 2 * hits / (claims + there) if claims + there else None,
        "auroc": None if math.isnan(area) else area,
    }


def _pictures(x: Tensor, outputs: Tensor, y: Tensor, ignore_index: int | None) -> dict[str, Any]:
    """Return pictures [h, w, 3], and the classes of their pixels [h, w], each at most 64 pixels high and wide.

    Of a volume it is the middle slice. Empty where examples are not pictures of the labels' size.
    """
    if x.dim() != y.dim() + 1 or x.shape[2:] != y.shape[1:] or outputs.shape[-1] > NO_CLASS:
        return {}
    predicted = torch.where(outputs.isfinite().all(-1), outputs.argmax(-1), NO_CLASS)
    unknown = (y == IGNORE) | (y == (IGNORE if ignore_index is None else ignore_index))
    y = torch.where(unknown, NO_CLASS, y.long())
    if y.dim() == 4:  # [M, Z, H, W]
        middle = y.shape[1] // 2
        x, y, predicted = x[:, :, middle], y[:, middle], predicted[:, middle]
    step = math.ceil(max(y.shape[1:]) / MAX_SIDE)
    x, y, predicted = x[..., ::step, ::step].double(), y[..., ::step, ::step], predicted[..., ::step, ::step]
    x = x if x.shape[1] == 3 else x[:, :1].expand(-1, 3, -1, -1)
    low, high = x.amin((1, 2, 3), keepdim=True), x.amax((1, 2, 3), keepdim=True)
    shades = ((x - low) / (high - low).clamp(min=1e-12) * 255).round().nan_to_num().permute(0, 2, 3, 1)
    each = zip(shades, y, predicted, strict=True)
    pictures = [{"picture": _pack(a), "labels": _pack(b), "predicted": _pack(c)} for a, b, c in each]
    return {"classes": outputs.shape[-1], "size": list(y.shape[1:]), "pictures": pictures} if pictures else {}


def _pack(values: Tensor) -> str:
    """Return whole numbers from 0 to 255 as base64 of a byte each, row by row."""
    return base64.b64encode(values.to(torch.uint8).contiguous().numpy().tobytes()).decode()
