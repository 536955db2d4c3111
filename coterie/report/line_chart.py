"""Draw curves: as a picture, and with their points, from which the page's script draws them with zoom and hover.

The picture is what paper shows, and a browser without scripts.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise
from math import ceil, floor, isfinite, log10
from typing import TYPE_CHECKING, Any

import numpy as np

from coterie.report.charts import CHART, SERIES_COLOURS, TEXT_COLOUR, dashes, draw_svg, series_variable

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

MAX_POINTS = 800
"""Of a curve in a picture: two for each column of pixels."""
MAX_ZOOM_POINTS = 2000
"""Of a curve that can be zoomed."""
MAX_CHART_POINTS = 16_000
"""Of all curves of a chart together, where they are many."""
MIN_POINTS = 200
BAND_OPACITY = 0.2
MAX_LINEAR_RATIO = 30
"""Where the largest value is more than this many times the median, y is logarithmic. Otherwise one round that went
wrong would press all others to the bottom of the chart."""


@dataclass(frozen=True)
class Curve:
    """One line of a chart. Points without a value are left out.

    Attributes:
        band: the ends, below and above, of a band around each point.
    """

    label: str
    x: Sequence[float]
    y: Sequence[float | None]
    band: Sequence[tuple[float, float]] | None = None


def line_chart(
    lines: Sequence[Curve],
    x_label: str,
    y_label: str,
    x_bytes: bool = False,
    level: float | None = None,
    legend: bool = True,
    legend_title: str | None = None,
    log_x: bool = False,
    zoom: bool = True,
) -> str | None:
    """Return a line chart as HTML; None where no line has a point.

    Args:
        lines: the lines.
        x_label, y_label: the axes' names.
        x_bytes: whether x counts bytes.
        level: a target value of y to mark.
        legend: whether to name the lines, where there are several.
        legend_title: what the names are, such as "layer".
        log_x: whether x is logarithmic, and every point is marked.
        zoom: whether the points come along for a page's script; without, it is the picture alone.
    """
    lines = [_drop_gaps(line) for line in lines]
    drawn = [(k, thin(line, MAX_POINTS, len(lines))) for k, line in enumerate(lines) if line.x]
    values = [y for _, line in drawn for y in line.y if y is not None]
    if not values:
        return None
    has_dots = log_x or all(len(line.x) < 3 for _, line in drawn)
    is_log = _is_skewed(values)

    def draw_lines(figure: Figure) -> None:
        axes = figure.add_subplot()
        for k, line in drawn:
            style, dots = (0, dashes(k)) if dashes(k) else "-", "o" if len(line.x) < 3 or log_x else ""
            colour = SERIES_COLOURS[k % len(SERIES_COLOURS)]
            ys = np.array(line.y, float)
            axes.plot(line.x, ys, color=colour, linestyle=style, label=line.label, marker=dots, markersize=4)
            if line.band:
                low, high = zip(*line.band, strict=True)
                axes.fill_between(line.x, low, high, color=colour, alpha=BAND_OPACITY, linewidth=0)
        if level is not None:
            axes.axhline(level, color=TEXT_COLOUR, linewidth=0.8, linestyle=":", label="target")
        axes.set_xlabel(x_label)
        axes.set_ylabel(y_label)
        if is_log:
            axes.set_yscale("log")
            axes.minorticks_off()
            axes.set_yticks(ticks := _log_ticks(min(values), max(values)), [f"{tick:g}" for tick in ticks])
        axes.margins(x=0.02)
        _set_x_ticks(axes, [x for _, line in drawn for x in line.x], x_bytes, log_x)
        if legend and len(axes.lines) > 1:
            axes.legend(title=legend_title, title_fontsize=9)

    name = f"{y_label} against {x_label}"
    picture = draw_svg(draw_lines, (4.8, 3.0), name)
    if not zoom:
        return picture
    data = {
        "name": name,
        "x_label": x_label,
        "y_label": y_label,
        "x_bytes": x_bytes,
        "log_x": log_x,
        "log_y": is_log,
        "points": has_dots,
        "legend": legend and len(drawn) + (level is not None) > 1,
        "lines": [_line_data(k, thin(lines[k], MAX_ZOOM_POINTS, len(lines))) for k, _ in drawn],
    }
    if level is not None:
        ends = [x for _, line in drawn for x in (line.x[0], line.x[-1])]
        ends = sorted({min(ends), max(ends)})
        data["lines"] += [_target(level, ends)]  # type: ignore[operator]
    return f"{CHART}{picture}{_json_element(data)}</figure>"


def _set_x_ticks(axes: Axes, xs: Sequence[float], x_bytes: bool, log_x: bool) -> None:
    """Choose the ticks of x: whole numbers where all are, and at most seven of those of a logarithmic axis."""
    from matplotlib.ticker import EngFormatter, MaxNLocator

    if log_x:
        axes.set_xscale("log")
        axes.minorticks_off()
        places = sorted(set(xs))
        axes.set_xticks(places[:: ceil(len(places) / 7)], [f"{x:.3g}" for x in places[:: ceil(len(places) / 7)]])
    else:
        whole = all(float(x).is_integer() for x in xs)
        axes.xaxis.set_major_locator(MaxNLocator(6, integer=whole and not x_bytes, min_n_ticks=1))
    if x_bytes:
        axes.xaxis.set_major_formatter(EngFormatter("B"))


def _line_data(k: int, line: Curve) -> dict[str, Any]:
    """Return what the page's script needs to draw a line."""
    data = {"label": line.label, "key": k, "colour": series_variable(k), "dash": dashes(k)}
    data |= {"x": [_shorten(x, 9) for x in line.x], "y": [_shorten(y) for y in line.y]}
    if line.band:
        low, high = zip(*line.band, strict=True)
        data |= {"low": [_shorten(y) for y in low], "high": [_shorten(y) for y in high]}
    return data


def _target(level: float, ends: Sequence[float]) -> dict[str, Any]:
    target = {"label": "target", "key": -1, "colour": "--ink", "dash": (2, 3), "width": 1, "plain": True}
    return target | {"x": ends, "y": [level] * len(ends)}


def _shorten(number: float | None, digits: int = 6) -> float | None:
    """Return a number with the digits that a reader can tell apart, so that it takes little room."""
    if number is None:
        return None
    short = float(f"{number:.{digits}g}")
    return int(short) if short.is_integer() and abs(short) < 1e15 else short


def _json_element(data: Any) -> str:
    """Return data as a block of JSON in a page; no text in them can end the block."""
    text = json.dumps(data, separators=(",", ":"), ensure_ascii=False, allow_nan=False)
    text = text.replace("<", "\\u003c").replace(">", "\\u003e").replace("&", "\\u0026")
    return f'<script type="application/json">{text}</script>'


def _is_skewed(values: Sequence[float]) -> bool:
    """Whether the largest value is far above the median, and all are above 0."""
    ordered = sorted(values)
    return ordered[0] > 0 and ordered[-1] > MAX_LINEAR_RATIO * ordered[len(ordered) // 2]


def _log_ticks(low: float, high: float) -> list[float]:
    """Return about four to eight round numbers between two, for a logarithmic axis.

    >>> _log_ticks(0.7, 95)
    [1.0, 3.0, 10.0, 30.0]
    """
    first, last = floor(log10(low)), ceil(log10(high))
    factors, stride = ((1, 3), 1) if last - first <= 4 else ((1,), ceil((last - first) / 7))
    every = (factor * 10.0**k for k in range(first, last + 1, stride) for factor in factors)
    return [value for value in every if low <= value <= high]


def _drop_gaps(line: Curve) -> Curve:
    """Return the points that have a finite value."""
    places = [k for k, y in enumerate(line.y) if y is not None and isfinite(y) and isfinite(line.x[k])]
    if len(places) == len(line.y):
        return line
    return _choose(line, places)


def _choose(line: Curve, places: Sequence[int]) -> Curve:
    band = None if line.band is None else [line.band[k] for k in places]
    return Curve(line.label, [line.x[k] for k in places], [line.y[k] for k in places], band)


def thin(line: Curve, most: int, lines: int = 1) -> Curve:
    """Return at most `most` points of a line without gaps, and fewer where there are many lines.

    The points fall into columns of equal numbers. Each column keeps its lowest and its highest point, and those of its
    band, so that one round that went wrong stays to be seen; the line keeps its ends.
    """
    most = max(min(most, MAX_CHART_POINTS // lines), MIN_POINTS)
    n = len(line.x)
    if n <= most:
        return line
    rows = [np.array(line.y, float), *(np.array(line.band, float).T if line.band else ())]
    edges = np.linspace(0, n, (most - 2) // (2 * len(rows)) + 1).astype(int)
    places = {0, n - 1}
    for row in rows:
        for first, last in pairwise(edges):
            places |= {int(first + row[first:last].argmin()), int(first + row[first:last].argmax())}
    return _choose(line, sorted(places))
