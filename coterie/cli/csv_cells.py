"""Tables of predictions as CSV files that a spreadsheet opens safely."""

from __future__ import annotations

import re
from pathlib import Path

from coterie.core.errors import Mistake
from coterie.core.files import write_atomic

_FORMULA_STARTS = ("=", "+", "-", "@", "\t", "\r")
_NUMBER = re.compile(r"[+-]?(\d+\.?\d*|\.\d+)([eE][+-]?\d+)?")


def guard_cell(text: str) -> str:
    """Return the text of a cell, with an apostrophe before it where a spreadsheet would take it for a formula.

    >>> [guard_cell(text) for text in ("=1+1", "@sum", "-1.5", "healthy")]
    ["'=1+1", "'@sum", '-1.5', 'healthy']
    """
    return f"'{text}" if text.startswith(_FORMULA_STARTS) and not _NUMBER.fullmatch(text) else text


def write_table(out: Path, text: str) -> None:
    """Write a table.

    Raises:
        Mistake: it cannot be written.
    """
    try:
        write_atomic(out, text.encode())
    except OSError as error:
        raise Mistake(f"--out {out}: cannot be written ({error.strerror or error}); choose another file") from error
