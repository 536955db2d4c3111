"""The folder of a sweep: which file lies where, and which run folders it holds.

sweep.toml      what the sweep varies
runs/NAME/      a run folder for each point of the grid
sweep.csv       a row for each run
report.html     the page
"""

from __future__ import annotations

import csv
from collections.abc import Sequence
from pathlib import Path

from coterie.core.errors import Mistake

SWEEP_FILE = "sweep.toml"
RUNS = "runs"
TABLE_FILE = "sweep.csv"


def is_sweep(folder: Path) -> bool:
    """Return whether a folder is that of a sweep."""
    return (folder / SWEEP_FILE).is_file()


def expand_sweeps(folders: Sequence[Path]) -> list[Path]:
    """Return run folders, with those of its runs in the place of a sweep's folder.

    They come in the order of the sweep's table; before there is one, in that of their names. Runs that have not begun
    are left out.

    Raises:
        Mistake: no run of a sweep has begun.
    """
    return [each for folder in folders for each in (_list_runs(folder) if is_sweep(folder) else [folder])]


def _list_runs(folder: Path) -> list[Path]:
    found = {path.parent.name: path.parent for path in sorted((folder / RUNS).glob("*/config.toml"))}
    if not found:
        raise Mistake(f"{folder}: no run of this sweep has begun; `coterie sweep` with --resume goes on with it")
    table = folder / TABLE_FILE
    if not table.is_file():
        return list(found.values())
    with table.open(newline="", encoding="utf-8") as file:
        order = [row[0] for row in csv.reader(file) if row]
    return [found[name] for name in order if name in found]
