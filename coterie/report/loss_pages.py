"""Write pages of the loss between and around the models of finished runs."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from html import escape
from math import isfinite
from pathlib import Path

import numpy as np
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from coterie.probes import Line, Plane
from coterie.report import page_parts
from coterie.report.charts import SERIES_COLOURS, TEXT_COLOUR, draw_svg
from coterie.report.formats import format_number
from coterie.report.line_chart import Curve, line_chart

CONTOUR_LINES = 12

Facts = Sequence[tuple[str, str]]
"""(name, text) of what was measured and on which data, for a table on the page."""


def write_line_page(line: Line, names: tuple[str, str], facts: Facts, path: Path) -> Path:
    """Write the page of a line through two runs' models, and return its path.

    Args:
        line: the losses along it.
        names: of the two runs.
        facts: what was measured, for a table.
        path: where the page is written.

    Raises:
        Mistake: the page cannot be written.
    """
    charts = [line_chart([Curve(name, line.t, _non_finite_to_none(v))], "t", name) for name, v in line.measures.items()]
    rows = zip(*([f"{t:.2f}" for t in line.t], *(map(format_number, v) for v in line.measures.values())), strict=True)
    text = (
        f"At t = 0 lies the model of {names[0]}, at t = 1 that of {names[1]}. Between them the loss rises at most "
        f"{format_number(line.barrier)} above the straight chord: the barrier."
    )
    parts = [
        page_parts.section("Along the line", page_parts.side_by_side(*charts)),
        page_parts.section("Numbers", page_parts.table(rows, ("t", *line.measures))),
    ]
    return _write_loss_page(f"From {names[0]} to {names[1]}", text, parts, facts, path)


def write_plane_page(plane: Plane, names: tuple[str, str, str], facts: Facts, path: Path) -> Path:
    """Write the page of the plane through three runs' models, and return its path; see `write_line_page`.

    Raises:
        Mistake: the page cannot be written.
    """
    charts = [
        draw_svg(partial(_draw_contours, plane=plane, name=name, models=names), (5.6, 4.4), f"{name} on the plane")
        for name in plane.measures
    ]
    text = (
        f"Lines of equal {' and of equal '.join(plane.measures)} on the plane through three models. Distances are "
        "those between the models' parameters."
    )
    parts = [page_parts.section("On the plane", page_parts.side_by_side(*charts))]
    return _write_loss_page(f"The plane of {', '.join(names)}", text, parts, facts, path)


def _write_loss_page(title: str, text: str, parts: Sequence[str], facts: Facts, path: Path) -> Path:
    head = [f"<h1>{escape(title)}</h1>", f"<p>{escape(text)}</p>"]
    sources = page_parts.section("Runs and data", page_parts.table(facts))
    return page_parts.write_chosen(path, page_parts.document(title, [*head, *parts, sources]))


def _non_finite_to_none(values: Sequence[float]) -> list[float | None]:
    return [value if isfinite(value) else None for value in values]


def _draw_contours(figure: Figure, plane: Plane, name: str, models: Sequence[str]) -> None:
    """Draw lines of equal values of the measure `name` on the plane, and a mark for each of the three models."""
    axes = figure.add_subplot()
    values = np.ma.masked_invalid(np.array(plane.measures[name]))
    low, high = values.min(), values.max()
    even = not low > 0 or high < 10 * low  # else levels grow by a factor
    levels = MaxNLocator(CONTOUR_LINES).tick_values(low, high) if even else np.geomspace(low, high, CONTOUR_LINES)
    if high > low:
        lines = axes.contour(plane.x, plane.y, values, levels=levels, colors=[SERIES_COLOURS[0]], linewidths=0.9)
        axes.clabel(lines, fmt="%.3g", fontsize=8, colors=[TEXT_COLOUR])
    for k, ((x, y), model) in enumerate(zip(plane.models, models, strict=True), 1):
        axes.plot([x], [y], "os^"[k - 1], color=SERIES_COLOURS[k], markersize=7, label=model)
    axes.set_aspect("equal", adjustable="datalim")
    axes.set_title(name)
    axes.set_xlabel("distance from the first model towards the second")
    axes.set_ylabel("distance at right angles to that")
    figure.legend(loc="outside lower center", ncols=len(models) if sum(map(len, models)) < 50 else 1)
