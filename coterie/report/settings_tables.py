"""Tables of every setting of a run."""

from __future__ import annotations

from html import escape
from typing import Any

from coterie.report import page_parts
from coterie.report.formats import format_setting
from coterie.report.run_reader import Run


def settings_tables(run: Run) -> str:
    """Return a table for each table of config.toml as HTML, in columns where there is room."""
    tables: dict[str, list[tuple[str, Any]]] = {}
    for name, value in run.config.items():
        table, _, key = name.rpartition(".")
        tables.setdefault(table, []).append((key, format_setting(value)))
    parts = (
        f"<section><h3>{escape(f'[{name}]' if name else 'top level')}</h3>{page_parts.table(rows)}</section>"
        for name, rows in tables.items()
    )
    return f"<div class=columns>{''.join(parts)}</div>"
