"""`coterie sweep`: carry out the runs of a grid, and show them."""

from __future__ import annotations

import shlex
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import typer

from coterie.cli.compare_command import COMPARISON_WIDTH, print_speed_ups
from coterie.cli.interrupts import handle_interrupts
from coterie.cli.option_names import mistakes_in_options
from coterie.cli.output_forms import JsonLines
from coterie.cli.text_table import print_table
from coterie.core.errors import few
from coterie.core.printable import printable
from coterie.report.sweep_folder import TABLE_FILE
from coterie.sweep.grid import SweepOptions, check_options, read_sweep
from coterie.track.checksums import REPORT_FILE

if TYPE_CHECKING:
    from coterie.sweep.write_results import Results


def run_sweep(
    file: Path, arguments: Sequence[str], folder: Path, options: SweepOptions, lines: JsonLines | None = None
) -> None:
    """Carry out a sweep, and print its results; end with status 1 where a run failed.

    Args:
        file: the experiment.
        arguments: KEY=VALUE,VALUE,... of the command line.
        folder: of the sweep.
        options: how it is carried out.
        lines: prints the row of each run at the end; None: nothing does.

    Raises:
        Mistake: a run's settings or the folder cannot be used; nothing is written then.
    """
    grid = read_sweep(file, arguments, folder, options.resume)
    with mistakes_in_options():
        check_options(options, grid.points)
    from coterie.cli.sweep_display import SweepDisplay
    from coterie.sweep.run_sweep import sweep  # which imports PyTorch

    command = _resume_command(file, arguments, folder, options)
    with handle_interrupts(command, "round"), SweepDisplay() as display:
        results = sweep(file, grid, folder, options, display)
    if lines is not None:
        for row in results.rows:
            lines.print(row)
    _print_results(results)
    if any(best.beyond is not None for best in results.best):
        wider = command if options.widen else f"{command} --widen"
        print(f"the best rate may lie outside the grid; widen it with\n  {wider}")
    print(folder / TABLE_FILE)
    print(folder / REPORT_FILE)
    if results.failed:
        _explain_failures(results)
        raise typer.Exit(1)


def print_array_job(file: Path, arguments: Sequence[str], folder: Path, options: SweepOptions) -> None:
    """Print the sweep as an array job of Slurm, after every mistake is looked for; nothing is written.

    Raises:
        Mistake: a run's settings or the folder cannot be used.
    """
    grid = read_sweep(file, arguments, folder, options.resume)
    with mistakes_in_options():
        check_options(options, grid.points)
    from coterie.sweep.check_points import check_points  # which imports PyTorch
    from coterie.sweep.slurm_job import array_job

    check_points(grid.points, folder, lambda number, total: None)
    command = _resume_command(file, [str(axis) for axis in grid.axes], folder, options)
    print(array_job(file, folder, grid.points, options.jobs, command), end="")


def _resume_command(file: Path, arguments: Sequence[str], folder: Path, options: SweepOptions) -> str:
    """Return the command that goes on with the sweep."""
    jobs = [] if options.jobs is None else ["--jobs", str(options.jobs)]
    base = [] if options.baseline is None else ["--baseline", options.baseline]
    wide = ["--widen"] if options.widen else []
    return shlex.join(
        ["coterie", "sweep", str(file), *arguments, "--out", str(folder), *jobs, *base, *wide, "--resume"]
    )


def _print_results(results: Results) -> None:
    """Print the table of the runs, or of their means over rng seeds, and the best learning rates."""
    comparison = results.comparison
    if comparison is not None:
        lines = comparison.table_of_means() or [comparison.head, *comparison.rows]
        print_table(lines[0], lines[1:], COMPARISON_WIDTH, overflow="fold")
        print_speed_ups(comparison)
    for best in results.best:
        print(best)


def _explain_failures(results: Results) -> None:
    names = list(results.failed)
    print(f"{len(names)} {'run' if len(names) == 1 else 'runs'} failed: {few(names, 10)}", file=sys.stderr)
    for name, why in list(results.failed.items())[:10]:
        print(printable(f"{name}: {why}"), file=sys.stderr)
