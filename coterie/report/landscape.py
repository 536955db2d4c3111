"""Pages of the loss between and around finished runs."""

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
from coterie.report import html
from coterie.report.charts import INK, SERIES, Curve, curves, svg
from coterie.report.words import number

LEVELS = 12
"""Contour lines of a plane."""

Facts = Sequence[tuple[str, str]]
"""What was measured, and on what."""


def write_line(line: Line, names: tuple[str, str], facts: Facts, path: Path) -> Path:
    """Write the page of a line through two runs' models, and return its path.

    Raises:
        Mistake: the page cannot be written.
    """
    charts = [curves([Curve(name, line.t, _known(v))], "t", name) for name, v in line.measures.items()]
    rows = zip(*([f"{t:.2f}" for t in line.t], *(map(number, v) for v in line.measures.values())), strict=True)
    told = (
        f"At t = 0 lies the model of {names[0]}, at t = 1 that of {names[1]}. Between them the loss rises "
        f"{number(line.barrier)} above the straight chord: the barrier."
    )
    parts = [
        html.section("Along the line", html.charts(*charts)),
        html.section("In numbers", html.table(rows, ("t", *line.measures))),
    ]
    return _written(f"From {names[0]} to {names[1]}", told, parts, facts, path)


def write_plane(plane: Plane, names: tuple[str, str, str], facts: Facts, path: Path) -> Path:
    """Write the page of the plane through three runs' models, and return its path.

    Raises:
        Mistake: the page cannot be written.
    """
    charts = [
        svg(partial(_contours, plane=plane, grid=grid, name=name, models=names), (5.6, 4.4), f"{name} on the plane")
        for name, grid in plane.measures.items()
    ]
    told = (
        f"Lines of equal {' and of equal '.join(plane.measures)} on the plane through three models; distances are "
        "those between their parameters."
    )
    parts = [html.section("On the plane", html.charts(*charts))]
    return _written(f"The plane of {', '.join(names)}", told, parts, facts, path)


def _written(title: str, told: str, parts: Sequence[str], facts: Facts, path: Path) -> Path:
    head = [f"<h1>{escape(title)}</h1>", f"<p>{escape(told)}</p>"]
    return html.write(path, html.document(title, [*head, *parts, html.section("Made from", html.table(facts))]))


def _known(values: Sequence[float]) -> list[float | None]:
    return [value if isfinite(value) else None for value in values]


def _contours(figure: Figure, plane: Plane, grid: list[list[float]], name: str, models: Sequence[str]) -> None:
    axes = figure.add_subplot()
    values = np.ma.masked_invalid(np.array(grid))
    low, high = values.min(), values.max()
    even = not low > 0 or high < 10 * low  # over several orders of magnitude, levels grow by a factor
    levels = MaxNLocator(LEVELS).tick_values(low, high) if even else np.geomspace(low, high, LEVELS)
    if high > low:
        lines = axes.contour(plane.x, plane.y, values, levels=levels, colors=[SERIES[0]], linewidths=0.9)
        axes.clabel(lines, fmt="%.3g", fontsize=8, colors=[INK])
    for k, ((x, y), model) in enumerate(zip(plane.models, models, strict=True), 1):
        axes.plot([x], [y], "o", color=SERIES[k], markersize=7, label=model)
    axes.set_aspect("equal", adjustable="datalim")
    axes.set_title(name)
    axes.set_xlabel("distance from the first model towards the second")
    axes.set_ylabel("distance at right angles to it")
    figure.legend(loc="outside lower center", ncols=len(models) if sum(map(len, models)) < 50 else 1)
