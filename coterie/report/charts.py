"""Draw charts as SVG that takes its colours from the page around it, so that it suits light and dark.

matplotlib draws in placeholder colours, which are then replaced by variables of the page's style sheet.
"""

from __future__ import annotations

import io
import re
import warnings
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from html import escape
from math import ceil, floor, log10
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:  # imported where it draws, since most processes of a run draw nothing
    from matplotlib.figure import Figure

SERIES_COLOURS = ("#a10001", "#a10002", "#a10003", "#a10004", "#a10005", "#a10006", "#a10007", "#a10008")
TEXT_COLOUR, GRID_COLOUR = "#a1000a", "#a1000b"
_VARIABLES = {colour: f"var(--series-{k})" for k, colour in enumerate(SERIES_COLOURS, 1)} | {
    TEXT_COLOUR: "currentColor",
    GRID_COLOUR: "var(--line)",
}
MAX_POINTS = 800
BAND_OPACITY = 0.2
MAX_LINEAR_RATIO = 30
"""Where the largest value is more than this many times the median, y is logarithmic. Otherwise one round that went
wrong would press all others to the bottom of the chart."""

_STYLE = {
    "svg.fonttype": "none",
    "text.parse_math": False,  # a dollar sign in a client's name is a dollar sign
    "text.color": TEXT_COLOUR,
    "axes.labelcolor": TEXT_COLOUR,
    "axes.edgecolor": GRID_COLOUR,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.grid": True,
    "axes.axisbelow": True,
    "grid.color": GRID_COLOUR,
    "grid.linewidth": 0.6,
    "xtick.color": GRID_COLOUR,
    "ytick.color": GRID_COLOUR,
    "xtick.labelcolor": TEXT_COLOUR,
    "ytick.labelcolor": TEXT_COLOUR,
    "font.size": 10,
    "legend.frameon": False,
    "legend.fontsize": 9,
    "lines.linewidth": 1.6,
    "figure.constrained_layout.use": True,
}


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
) -> str | None:
    """Return a line chart as SVG; None where no line has a point.

    Args:
        lines: the lines.
        x_label, y_label: the axes' names.
        x_bytes: whether x counts bytes.
        level: a target value of y to mark.
        legend: whether to name the lines, where there are several.
        legend_title: what the names are, such as "layer".
        log_x: whether x is logarithmic, and every point is marked.
    """
    thinned = [(line.label, *_thin(line)) for line in lines]
    values = [y for _, _, ys in thinned for y in ys]
    whole = all(float(x).is_integer() for _, xs, _ in thinned for x in xs)
    if not values:
        return None

    def draw_lines(figure: Figure) -> None:
        from matplotlib.ticker import EngFormatter, MaxNLocator

        axes = figure.add_subplot()
        for k, (label, xs, ys) in enumerate(thinned):
            dots = "o" if len(xs) < 3 or log_x else ""
            style = "-" if k < len(SERIES_COLOURS) else "--"
            colour = SERIES_COLOURS[k % len(SERIES_COLOURS)]
            axes.plot(xs, ys, color=colour, linestyle=style, label=label, marker=dots, markersize=4)
            band = lines[k].band
            if band is not None:
                low, high = zip(*band, strict=True) if band else ((), ())
                axes.fill_between(lines[k].x, low, high, color=colour, alpha=BAND_OPACITY, linewidth=0)
        if level is not None:
            axes.axhline(level, color=TEXT_COLOUR, linewidth=0.8, linestyle=":", label="target")
        axes.set_xlabel(x_label)
        axes.set_ylabel(y_label)
        if _is_skewed(values):
            axes.set_yscale("log")
            axes.minorticks_off()
            axes.set_yticks(ticks := _log_ticks(min(values), max(values)), [f"{tick:g}" for tick in ticks])
        axes.margins(x=0.02)
        if log_x:
            axes.set_xscale("log")
            axes.minorticks_off()
            places = sorted({x for _, xs, _ in thinned for x in xs})
            axes.set_xticks(places[:: ceil(len(places) / 7)], [f"{x:.3g}" for x in places[:: ceil(len(places) / 7)]])
        else:
            axes.xaxis.set_major_locator(MaxNLocator(6, integer=whole and not x_bytes, min_n_ticks=1))
        if x_bytes:
            axes.xaxis.set_major_formatter(EngFormatter("B"))
        if legend and len(axes.lines) > 1:
            axes.legend(title=legend_title, title_fontsize=9)

    return draw_svg(draw_lines, (4.8, 3.0), f"{y_label} against {x_label}")


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


def _thin(line: Curve) -> tuple[list[float], list[float]]:
    """Return the points that have a value: at most about `MAX_POINTS` of them, with the last one."""
    points = [(x, y) for x, y in zip(line.x, line.y, strict=True) if y is not None]
    stride = -(-len(points) // MAX_POINTS) or 1
    chosen = points[::stride] + (points[-1:] if (len(points) - 1) % stride else [])
    return [x for x, _ in chosen], [y for _, y in chosen]


def draw_svg(draw: Callable[[Figure], None], inches: tuple[float, float], description: str) -> str:
    """Let `draw` draw on a figure, and return it as an SVG element for a page."""
    from matplotlib import rc_context
    from matplotlib.figure import Figure

    with rc_context(_STYLE | {"svg.hashsalt": description}), warnings.catch_warnings():  # type: ignore[arg-type]
        warnings.simplefilter("ignore")  # about characters that matplotlib's font lacks; the reader's font has them
        figure: Any = Figure(figsize=inches)
        draw(figure)
        file = io.StringIO()
        figure.savefig(file, format="svg", transparent=True, metadata={"Date": None, "Creator": None})
    return _adapt_to_page(file.getvalue(), description)


def _adapt_to_page(text: str, description: str) -> str:
    """Return the SVG element alone, with the page's colours and fonts, and a width that follows the page's."""
    for colour, variable in _VARIABLES.items():
        text = text.replace(colour, variable)
    text = re.sub(r"<metadata>.*?</metadata>\s*", "", text, flags=re.DOTALL)
    text = re.sub(r"font: ([\d.]+)px [^;\"]*", r"font-size: \1px", text)
    opening = re.search(r'<svg[^>]*viewBox="(0 0 ([\d.]+) [\d.]+)"[^>]*>', text)
    assert opening is not None, "matplotlib wrote an SVG without a view box"
    box, width = opening[1], 1.4 * float(opening[2])
    style = f'viewBox="{box}" style="max-width: {width:.0f}px" role="img" aria-label="{escape(description)}"'
    return f"<svg {style}>{text[opening.end() :]}"
