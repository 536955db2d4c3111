"""Every setting of a run, table by table."""

from __future__ import annotations

from html import escape
from typing import Any

from coterie.report import html
from coterie.report.read import Run
from coterie.report.words import value


def configuration(run: Run) -> str:
    """The settings as HTML, in columns where there is room."""
    tables: dict[str, list[tuple[str, Any]]] = {}
    for name, given in run.config.items():
        table, _, key = name.rpartition(".")
        tables.setdefault(table, []).append((key, value(given)))
    parts = (
        f"<section><h3>{escape(f'[{name}]' if name else 'top level')}</h3>{html.table(rows)}</section>"
        for name, rows in tables.items()
    )
    return f"<div class=columns>{''.join(parts)}</div>"
