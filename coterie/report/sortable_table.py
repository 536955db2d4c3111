"""A table on a page that a click on a column's head sorts."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from html import escape

_UNITS = {"B": 1, "kB": 1e3, "MB": 1e6, "GB": 1e9, "TB": 1e12, "s": 1, "min": 60, "h": 3600, "%": 1, "x": 1}
_QUANTITY = re.compile(r"(-?[\d.]+(?:e[+-]?\d+)?) ?([A-Za-z%]*)(?: ± [\d.]+ ?%?)?")
_TIME = re.compile(r"(\d+) (min|h) (\d+) (s|min)")


def sortable_table(head: Sequence[str], rows: Iterable[Sequence[str]], links: Mapping[str, str] | None = None) -> str:
    """Return rows as a table that sorts; everything is escaped.

    Args:
        head: the columns' names.
        rows: their cells.
        links: from the text of a row's first cell to where it leads.
    """
    top = "".join(f'<th scope="col"><button type="button">{escape(name)}</button></th>' for name in head)
    body = "".join(
        f"<tr>{''.join(_cell(text, k == 0, links or {}) for k, text in enumerate(row))}</tr>" for row in rows
    )
    return f'<div class=wide><table class="sortable"><thead><tr>{top}</tr></thead><tbody>{body}</tbody></table></div>'


def _cell(text: str, is_first: bool, links: Mapping[str, str]) -> str:
    shown = escape(text)
    if is_first and text in links:
        shown = f'<a href="{escape(links[text])}">{shown}</a>'
    number = read_quantity(text)
    key = "" if number is None else f' data-key="{number!r}"'
    return f"<td{key}>{shown}</td>"


def read_quantity(text: str) -> float | None:
    """Return the number by which a cell sorts; None for text.

    >>> read_quantity("1.9 MB"), read_quantity("2 h 3 min"), read_quantity("91.23 ± 0.31 %"), read_quantity("cnn")
    (1900000.0, 7380, 91.23, None)
    """
    time = _TIME.fullmatch(text)
    if time:
        return int(time[1]) * _UNITS[time[2]] + int(time[3]) * _UNITS[time[4]]
    found = _QUANTITY.fullmatch(text)
    if found is None or (found[2] and found[2] not in _UNITS):
        return None
    try:
        return float(found[1]) * _UNITS.get(found[2], 1)
    except ValueError:  # several points
        return None
