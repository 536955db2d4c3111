"""Print tables of text on the terminal."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Literal

from coterie.core.printable import printable


def print_table(
    head: Sequence[str],
    rows: Iterable[Sequence[str]],
    file_width: int = 240,
    overflow: Literal["ellipsis", "fold"] = "ellipsis",
) -> None:
    """Print rows under the columns' names; outside a terminal, in lines of up to `file_width` characters.

    Args:
        head: the columns' names.
        rows: their cells; nothing in them is markup.
        file_width: characters in a line where the output is not a terminal.
        overflow: what happens to a cell that does not fit: it is cut, or it takes several lines.
    """
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    console = Console(highlight=False)
    if not console.is_terminal:
        console = Console(highlight=False, width=file_width)
    table = Table(box=None, pad_edge=False, padding=(0, 2, 0, 0))
    for name in head:
        table.add_column(Text(printable(name)), overflow=overflow)
    for row in rows:
        table.add_row(*(Text(printable(cell)) for cell in row))
    console.print(table)
