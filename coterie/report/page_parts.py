"""Build an HTML page from parts: one file with its style inside, for light and dark screens and for paper."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from html import escape
from math import ceil
from pathlib import Path
from typing import Any

from coterie.core.errors import Mistake
from coterie.core.files import write_atomic
from coterie.report.asset_files import PLOTS, policy, read_asset, script, style
from coterie.report.charts import CHART, dashes, series_variable

MAX_TILES = 8
"""In one row."""
MAX_TABLE_ROWS = 40
"""A table with more scrolls."""

ENHANCE = "coterie.enhance(document);"
"""What a page does once it is there; a live page does it again with each report."""


def document(title: str, parts: Iterable[str]) -> str:
    """Return a whole page with a title, as text, and its parts, as HTML."""
    body = "\n".join(parts)
    plots = PLOTS if CHART in body else ()
    theme, *scripts = map(read_asset, ("theme.js", *plots, "page.js"))
    scripts.append(ENHANCE)
    elements = "".join(map(script, scripts))
    return (
        f'<!doctype html>\n<html lang="en">\n<head>\n<meta charset="utf-8">\n'
        f'<meta name="viewport" content="width=device-width, initial-scale=1">\n{policy([theme, *scripts])}\n'
        f'<link rel="icon" href="data:,">\n<title>{escape(title)}</title>\n{style()}\n{script(theme)}\n</head>\n'
        f"<body>\n<main>\n{body}\n</main>\n{elements}\n</body>\n</html>\n"
    )


def failure(sentence: str | None) -> str:
    """Return why a run failed, as a paragraph; empty where it did not."""
    return f"<p class=failed><b>This run trained nothing of use: {escape(sentence)}.</b></p>" if sentence else ""


def write_chosen(path: Path, text: str, option: str = "out") -> Path:
    """Write a page, or other text, to the path that the user chose with an option, and return the path.

    Raises:
        Mistake: it cannot be written there.
    """
    try:
        write_atomic(path, text.encode())
    except OSError as error:
        raise Mistake(f"{path}: cannot be written ({error.strerror}); choose another with --{option}") from error
    return path


def section(title: str, *parts: str | None) -> str:
    """Return a heading with its parts below it; an empty string where all parts are empty."""
    present = [part for part in parts if part]
    return "\n".join(["<section>", f"<h2>{escape(title)}</h2>", *present, "</section>"]) if present else ""


def tiles(numbers: Sequence[tuple[str, str]]) -> str:
    """Return the most important numbers as tiles, in one row or in rows of equal length; each is (value, name)."""
    each = (f"<div class=tile><b>{escape(value)}</b><span>{escape(name)}</span></div>" for value, name in numbers)
    columns = ceil(len(numbers) / ceil(len(numbers) / MAX_TILES)) if numbers else 1
    return f'<div class=tiles style="--columns: {columns}">{"".join(each)}</div>'


def side_by_side(*pictures: str | None) -> str | None:
    """Return charts next to one another where there is room; None where there are none."""
    present = [f"<div>{picture}</div>" for picture in pictures if picture]
    return f"<div class=charts>{''.join(present)}</div>" if present else None


def legend(names: Sequence[str]) -> str:
    """Return a legend of names with their colours and dashes, for several charts of a section that share them."""
    each = (f"<span>{_swatch(k)}{escape(name)}</span>" for k, name in enumerate(names))
    return f'<div class="keys shared">{"".join(each)}</div>'


def _swatch(k: int) -> str:
    dash = " ".join(map(str, dashes(k))) or "none"
    return (
        '<svg class=swatch viewBox="0 0 26 8" aria-hidden=true><line x1=0 x2=26 y1=4 y2=4 stroke-width=2.5 '
        f'stroke-dasharray="{dash}" style="stroke: var({series_variable(k)})"/></svg>'
    )


def copyable(text: str, name: str) -> str:
    """Return a text that can be copied as it stands, such as a command; `name` says what it is to those who hear it."""
    region = f'tabindex=0 role=region aria-label="{escape(name)}"'
    return f"<div class=copy><pre {region}><code>{escape(text)}</code></pre></div>"


def scrollable(picture: str | None, name: str) -> str | None:
    """Return a wide picture that scrolls inside its own box where the screen is narrow."""
    return f'<div class=wide tabindex=0 role=region aria-label="{escape(name)}">{picture}</div>' if picture else None


def table(rows: Iterable[Sequence[Any]], head: Sequence[str] = ()) -> str:
    """Return rows of values as a table, in a box that scrolls where there are many; everything is escaped."""
    rows = list(rows)
    top = f"<tr>{''.join(f'<{_head(h)}>{escape(str(h))}</{_head(h)}>' for h in head)}</tr>" if head else ""
    body = "".join(f"<tr>{''.join(f'<td>{escape(str(v))}</td>' for v in row)}</tr>" for row in rows)
    box = 'class="wide tall" tabindex=0 role=region aria-label="table"' if len(rows) > MAX_TABLE_ROWS else "class=wide"
    return f"<div {box}><table>{top}{body}</table></div>"


def _head(text: object) -> str:
    """Return the tag of a column's head: one without a name is a plain cell."""
    return "th" if str(text) else "td"
