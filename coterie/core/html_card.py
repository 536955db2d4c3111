"""A value as a small table in HTML, as notebooks show it: without style sheets, scripts, or anything from elsewhere."""

from __future__ import annotations

from collections.abc import Mapping
from html import escape

_CELL = "text-align: left; padding: 1px 1em 1px 0;"


def html_card(title: str, rows: Mapping[str, object]) -> str:
    """Return a title and rows as HTML; rows with the value None are left out, and everything is escaped.

    >>> html_card("Round 1", {"reached": 1200, "loss": None})[-97:]
    '<tr><td style="text-align: left; padding: 1px 1em 1px 0;">reached</td><td>1,200</td></tr></table>'
    """
    lines = "".join(
        f'<tr><td style="{_CELL}">{escape(name)}</td><td>{escape(_text(value))}</td></tr>'
        for name, value in rows.items()
        if value is not None
    )
    return f'<table><caption style="text-align: left;"><b>{escape(title)}</b></caption>{lines}</table>'


def _text(value: object) -> str:
    """Return a number as people read it, and anything else as text.

    >>> _text(1234567), _text(0.123456), _text(True), _text("cnn")
    ('1,234,567', '0.1235', 'true', 'cnn')
    """
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, int):
        return f"{value:,}"
    return f"{value:.4g}" if isinstance(value, float) else str(value)
