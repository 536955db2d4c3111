"""`coterie compare`: print the comparison of runs, and write it as a page, as CSV, and for a paper."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from coterie.cli.option_names import mistakes_in_options
from coterie.cli.text_table import print_table

if TYPE_CHECKING:
    from coterie.report.comparison import Comparison

STANDARD_OUTPUT = Path("-")
COMPARISON_WIDTH = 400
"""Characters in a line of a comparison where the output is not a terminal: enough that no line is broken."""


def compare_folders(
    folders: Sequence[Path],
    out: Path,
    target: float | None,
    baseline: str | None,
    csv: Path | None,
    latex: Path | None,
) -> None:
    """Compare runs, print their tables and the paths of the files that are written.

    Where `csv` or `latex` is "-", that text alone is printed, for another program; paths go to standard error.

    Args:
        folders: run folders, or those of sweeps.
        out: the page to write.
        target: the accuracy to count rounds to.
        baseline: the run that speed-ups refer to.
        csv, latex: further files to write; "-" is standard output.

    Raises:
        Mistake: the folders cannot be compared, or a file cannot be written.
    """
    from coterie.report import compare_runs, write_comparison
    from coterie.report.page_parts import write_chosen
    from coterie.report.table_files import comparison_rows, format_csv, format_latex

    with mistakes_in_options():
        comparison = compare_runs(folders, target, baseline)
    texts = {"csv": lambda: format_csv(comparison_rows(comparison)), "latex": lambda: format_latex(comparison)}
    chosen = {"csv": csv, "latex": latex}
    if STANDARD_OUTPUT not in chosen.values():
        _print_tables(comparison)
    paths = sys.stderr if STANDARD_OUTPUT in chosen.values() else sys.stdout
    for name, path in chosen.items():
        if path == STANDARD_OUTPUT:
            print(texts[name](), end="")
        elif path is not None:
            print(write_chosen(path, texts[name](), name), file=paths)
    print(write_comparison(comparison, out), file=paths)


def _print_tables(comparison: Comparison) -> None:
    """Print the settings and results of each run, the means over rng seeds, and what speed-ups are over."""
    head, *rows = comparison.table()
    print_table(head, rows, COMPARISON_WIDTH, overflow="fold")
    means = comparison.table_of_means()
    if means:
        print()
        print_table(means[0], means[1:], COMPARISON_WIDTH, overflow="fold")
    print_speed_ups(comparison)


def print_speed_ups(comparison: Comparison) -> None:
    """Print what speed-ups are over, or why there are none."""
    sentence = comparison.explain_speed_ups()
    if sentence is not None:
        print(sentence)
