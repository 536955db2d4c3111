"""A comparison of runs as a table on the terminal."""

from __future__ import annotations

from coterie.cli import table
from coterie.report import Comparison

WIDE = 400
"""Columns of text where the output is no terminal: enough that no row is broken."""


def show(comparison: Comparison) -> None:
    """Print the settings in which the runs differ, then how they ended."""
    head, *rows = comparison.table()
    table.show(head, rows, WIDE, overflow="fold")
