"""Panels of what the final model predicts on the test data, from predictions.json: one for each kind of task."""

from __future__ import annotations

import base64
from collections.abc import Callable, Sequence
from html import escape
from typing import TYPE_CHECKING, Any

import numpy as np

from coterie.report import page_parts
from coterie.report.charts import SERIES_COLOURS, TEXT_COLOUR, draw_svg
from coterie.report.formats import format_number
from coterie.report.line_chart import Curve, line_chart
from coterie.report.run_reader import Run

if TYPE_CHECKING:
    from matplotlib.figure import Figure
    from numpy.typing import NDArray

LABEL_MEASURES = ("accuracy", "precision", "recall", "f1", "auroc")


def prediction_charts(run: Run) -> str | None:
    """Return the panel as HTML; a sentence where the test rows stay at the silos; None where there is none."""
    if run.predictions is None:
        kind = run.config.get("task.kind")
        return f"<p>{escape(_AT_SILOS)}</p>" if run.over and run.hosts is not None and kind in _PANELS else None
    draw, of_clients = _PANELS[run.predictions["task"]], run.predictions.get("clients")
    if of_clients is None:
        return draw(run, run.predictions)
    parts = [f"<h3>The model of client {escape(client)}</h3>{draw(run, panel)}" for client, panel in of_clients.items()]
    return "\n".join(parts)


_AT_SILOS = "Not shown: the test rows stay at the silos."


def _draw_binary(run: Run, panel: dict[str, Any]) -> str | None:
    """Return the ROC curve and the calibration."""
    diagonal, bins = [0.0, 0.5, 1.0], panel["calibration"]
    roc = Curve("model", panel["false_positive"], panel["true_positive"])
    come_true = Curve("model", [b["predicted"] for b in bins], [b["observed"] for b in bins])
    chance, right = Curve("chance", diagonal, diagonal), Curve("calibrated", diagonal, diagonal)
    return page_parts.side_by_side(
        _add_caption(
            line_chart([roc, chance], "false positive rate", "true positive rate"),
            "ROC curve.",
        ),
        _add_caption(
            line_chart([come_true, right], "predicted probability", "share that came true"),
            f"Calibration: the {panel['examples']:,} test examples in {len(bins)} groups by predicted probability.",
        ),
    )


def _draw_regression(run: Run, panel: dict[str, Any]) -> str | None:
    """Return a chart of predicted against true for each column."""
    shown, names = len(panel["columns"][0]["true"]), _names(run)
    part = "All" if shown == panel["examples"] else f"{shown:,} of the"
    caption = f"{part} {panel['examples']:,} test examples. On the line, predicted is true."
    pictures = []
    for column in panel["columns"]:
        number = column["column"]
        name = f" {names[number]}" if number < len(names) else f" {number}" if len(panel["columns"]) > 1 else ""
        pictures.append(_add_caption(_scatter(column["true"], column["predicted"], name), caption))
    return page_parts.side_by_side(*pictures)


def _scatter(true: Sequence[float], predicted: Sequence[float], name: str) -> str:
    """Return a chart of points around the line on which predicted is true."""

    def draw(figure: Figure) -> None:
        axes = figure.add_subplot()
        ends = [min(true), max(true)]
        axes.plot(ends, ends, color=TEXT_COLOUR, linewidth=0.8, linestyle=":")
        axes.plot(true, predicted, "o", color=SERIES_COLOURS[0], markersize=3, alpha=0.6, markeredgewidth=0)
        axes.set_xlabel(f"true{name}")
        axes.set_ylabel(f"predicted{name}")

    return draw_svg(draw, (4.8, 3.6), f"predicted{name} against true{name}")


def _draw_multilabel(run: Run, panel: dict[str, Any]) -> str:
    """Return a table with a row for each label."""
    names = _names(run)
    rows = [
        [
            names[k] if k < len(names) else k,
            label["examples"],
            label["positives"],
            *(format_number(label[measure]) for measure in LABEL_MEASURES),
        ]
        for k, label in enumerate(panel["labels"])
    ]
    return page_parts.table(rows, ["label", "test examples", "with it", *LABEL_MEASURES])


def _names(run: Run) -> Sequence[str]:
    """Return the names of the labels' columns, where the run has them."""
    return run.config.get("data.label_columns") or run.labels or []


def _draw_segmentation(run: Run, panel: dict[str, Any]) -> str:
    """Return pictures beside their labels and the predictions, which lie over them in colour."""
    (height, width), pictures = panel["size"], panel["pictures"]

    def draw(figure: Figure) -> None:
        grid = figure.subplots(len(pictures), 3, squeeze=False)
        for row, (axes_of_row, each) in enumerate(zip(grid, pictures, strict=True)):
            picture = _unpack(each["picture"], height, width, 3)
            layers = (None, _unpack(each["labels"], height, width), _unpack(each["predicted"], height, width))
            for axes, layer, title in zip(axes_of_row, layers, ("picture", "labels", "predicted"), strict=True):
                axes.imshow(picture, interpolation="nearest")
                if layer is not None:
                    axes.imshow(_colour(layer), interpolation="nearest")
                axes.set_axis_off()
                if row == 0:
                    axes.set_title(title, fontsize=10)

    svg = draw_svg(draw, (6.0, 2.1 * len(pictures)), "pictures, their labels, and the predictions")
    return _add_caption(svg, "Some test pictures. A colour is a class; class 0 and pixels that do not count have none.")


def _unpack(text: str, *shape: int) -> NDArray[np.uint8]:
    """Return the bytes that `coterie.objectives.panels` packed, as an array of this shape."""
    return np.frombuffer(base64.b64decode(text), np.uint8).reshape(shape)


def _colour(classes: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """Return a layer [h, w, 4] of half transparent colours for the classes of pixels [h, w]."""
    from matplotlib import colormaps

    colours = (np.array([(*colormaps["tab10"](k % 10)[:3], 0.55) for k in range(256)]) * 255).astype(np.uint8)
    colours[[0, 255]] = 0
    layer: NDArray[np.uint8] = colours[classes]
    return layer


def _add_caption(picture: str | None, caption: str) -> str:
    return f"<p class=soft>{escape(caption)}</p>{picture or ''}"


_PANELS: dict[str, Callable[[Run, dict[str, Any]], str | None]] = {
    "binary": _draw_binary,
    "regression": _draw_regression,
    "multilabel": _draw_multilabel,
    "segmentation": _draw_segmentation,
}
