"""Rows of text on the terminal, under the names of their columns."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Literal

from rich.console import Console
from rich.table import Table
from rich.text import Text


def show(
    head: Sequence[str],
    rows: Iterable[Sequence[str]],
    wide: int = 240,
    overflow: Literal["ellipsis", "fold"] = "ellipsis",
) -> None:
    """Print a table.

    Args:
        head: the columns' names. rows: their cells; nothing in them is markup.
        wide: columns of text where the output is no terminal.
        overflow: what becomes of a cell that does not fit.
    """
    console = Console(highlight=False)
    if not console.is_terminal:
        console = Console(highlight=False, width=wide)
    table = Table(box=None, pad_edge=False, padding=(0, 2, 0, 0))
    for name in head:
        table.add_column(Text(name), overflow=overflow)
    for row in rows:
        table.add_row(*map(Text, row))
    console.print(table)
