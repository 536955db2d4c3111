"""What a report shows of predictions: worked out by hand, and bounded in size."""

from __future__ import annotations

import base64
import json
import math
from typing import Any

import pytest
import torch
from torch import Tensor

from coterie import Examples
from coterie.objectives.kinds import KINDS
from coterie.objectives.panels import MAX_POINTS, NO_CLASS, PANEL_KINDS, choose_rows, describe_panel


def panel(kind: str, outputs: Tensor, y: Tensor, x: Tensor | None = None, ignore: int | None = None) -> dict[str, Any]:
    examples = Examples(torch.zeros(len(y), 1) if x is None else x, y)
    return describe_panel(KINDS[kind], examples, outputs, ignore)


def test_a_roc_curve_and_a_calibration_by_hand() -> None:
    """Positives at the logits 2 and 0, negatives at 1 and -2: from the top down the curve goes up, right, up, right.

    Their probabilities are 0.88, 0.5, 0.73 and 0.12, each in a group of its own.
    """
    found = panel("binary", torch.tensor([[2.0], [1.0], [0.0], [-2.0]]), torch.tensor([1, 0, 1, 0]))
    assert (found["false_positive"], found["true_positive"]) == ([0, 0, 0.5, 0.5, 1], [0, 0.5, 0.5, 1, 1])
    assert [b["predicted"] for b in found["calibration"]] == pytest.approx([0.1192, 0.5, 0.7311, 0.8808], abs=1e-4)
    assert [b["observed"] for b in found["calibration"]] == [0, 1, 0, 1]


def test_labels_that_do_not_count_and_broken_outputs_are_left_out() -> None:
    outputs = torch.tensor([2.0, -1.0, 5.0, math.nan])
    assert panel("binary", outputs, torch.tensor([1, 0, -1, 1]), ignore=-1)["examples"] == 2
    assert panel("binary", outputs, torch.tensor([1, 1, 1, 1])) == {}
    assert panel("regression", torch.full((3,), math.nan), torch.zeros(3)) == {}
    assert panel("regression", outputs, torch.arange(4.0))["columns"][0]["predicted"] == [2, -1, 5]


def test_measures_of_each_label_by_hand() -> None:
    """Label 0: said of 0, 1 and 2, true of 0, 1 and 3; so precision, recall and f1 are 2/3, and the accuracy 1/2."""
    y = torch.tensor([[1, 0], [1, 0], [0, 0], [1, 0]])
    first, second = panel("multilabel", torch.tensor([[3.0, -1], [2.0, -1], [1.0, -1], [-1.0, -1]]), y)["labels"]
    assert (first["positives"], first["accuracy"]) == (3, 0.5)
    assert [first[name] for name in ("precision", "recall", "f1")] == pytest.approx([2 / 3] * 3)
    assert first["auroc"] == pytest.approx(2 / 3)
    assert (second["accuracy"], second["precision"], second["f1"], second["auroc"]) == (1, None, None, None)


def test_pictures_are_thinned_and_keep_the_classes_of_their_pixels() -> None:
    """100 x 80 pixels are read at every second one; the left half is class 1, and the model says so of the top half."""
    x, y = torch.rand(3, 1, 100, 80), torch.zeros(3, 100, 80, dtype=torch.int64)
    y[:, :, :40] = 1
    y[:, 0] = -100
    outputs = torch.zeros(3, 100, 80, 2)
    outputs[:, :50, :, 1] = 1
    found = panel("segmentation", outputs, y, x)
    assert (found["size"], found["classes"], len(found["pictures"])) == ([50, 40], 2, 3)
    read = {name: base64.b64decode(text) for name, text in found["pictures"][0].items()}
    assert len(read["picture"]) == 50 * 40 * 3
    assert list(read["labels"][:40]) == [NO_CLASS] * 40
    assert list(read["labels"][40:80]) == [1] * 20 + [0] * 20
    assert (set(read["predicted"][:1000]), set(read["predicted"][1000:])) == ({1}, {0})
    slices = outputs[:, None].expand(-1, 4, -1, -1, -1), y[:, None].expand(-1, 4, -1, -1)
    volumes = panel("segmentation", *slices, x[:, :, None].expand(-1, -1, 4, -1, -1))
    assert volumes == found
    assert panel("segmentation", outputs, y, torch.zeros(3, 5)) == {}


@pytest.mark.parametrize("kind", PANEL_KINDS)
def test_a_panel_is_small_whatever_the_number_of_examples(kind: str) -> None:
    generator = torch.Generator().manual_seed(0)
    shape = {"multilabel": (3,), "segmentation": (200, 200)}.get(kind, ())
    y = torch.randint(0, 2, (len(rows := choose_rows(KINDS[kind], 20_000)), *shape), generator=generator)
    outputs = torch.randn(*y.shape, *([2] if kind == "segmentation" else []), generator=generator)
    x = torch.rand(len(rows), 3, 200, 200) if kind == "segmentation" else None
    found = panel(kind, outputs, y.double() if kind == "regression" else y, x)
    assert 0 < len(json.dumps(found)) < 200_000
    assert len(found.get("columns", [{"true": []}])[0]["true"]) <= MAX_POINTS
