"""Draw charts as SVG that takes its colours from the page around it, so that it suits light and dark.

matplotlib draws in placeholder colours, which are then replaced by variables of the page's style sheet.
"""

from __future__ import annotations

import io
import re
import warnings
from collections.abc import Callable
from html import escape
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:  # imported where it draws, since most processes of a run draw nothing
    from matplotlib.figure import Figure

SERIES_COLOURS = ("#a10001", "#a10002", "#a10003", "#a10004", "#a10005", "#a10006", "#a10007", "#a10008")
TEXT_COLOUR, GRID_COLOUR = "#a1000a", "#a1000b"
_VARIABLES = {colour: f"var(--series-{k})" for k, colour in enumerate(SERIES_COLOURS, 1)} | {
    TEXT_COLOUR: "currentColor",
    GRID_COLOUR: "var(--line)",
}
DASHES: tuple[tuple[float, ...], ...] = ((), (7, 3), (2, 2), (9, 3, 2, 3), (14, 4), (5, 2, 2, 2, 2, 2))
"""On and off, in pixels. Series differ by their dashes too, for those who see colours otherwise and on grey paper."""

CHART = "<figure class=plot>"

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


def dashes(k: int) -> tuple[float, ...]:
    """Return the dashes of the k-th series, on and off in pixels; none for a solid line.

    >>> dashes(0), dashes(1), dashes(6)
    ((), (7, 3), ())
    """
    return DASHES[k % len(DASHES)]  # with eight colours, no two of 24 series look the same


def series_variable(k: int) -> str:
    """Return the variable of the style sheet that holds the k-th series' colour.

    >>> series_variable(0), series_variable(8)
    ('--series-1', '--series-1')
    """
    return f"--series-{k % len(SERIES_COLOURS) + 1}"


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
    style = (
        f'class=picture viewBox="{box}" style="max-width: {width:.0f}px" role="img" aria-label="{escape(description)}"'
    )
    return f"<svg {style}>{text[opening.end() :]}"
