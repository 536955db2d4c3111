"""Write what a sweep found: sweep.csv, a row for each run, and report.html."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from coterie.report.comparison import Comparison, compare, run_results
from coterie.report.run_reader import Run, read_run
from coterie.report.sweep_folder import RUNS, TABLE_FILE
from coterie.report.sweep_page import sweep_page
from coterie.report.table_files import format_csv
from coterie.sweep.axes import Axis
from coterie.sweep.best_rate import BestRate, find_best_rates
from coterie.sweep.points import Point
from coterie.track.checksums import REPORT_FILE
from coterie.track.file_writing import write_file
from coterie.track.measures import list_metrics

_RESULTS = ("rounds", "test_accuracy", "best_test_accuracy", "rounds_to_target", "speed_up")
"""Results that every row has, in a sweep of which no run has any."""


class Results(NamedTuple):
    """What a sweep found.

    Attributes:
        comparison: of the runs that have a folder; None where none has.
        best: the best learning rate of each setting.
        failed: the name of each run that failed -> why.
        rows: of sweep.csv, one for each point.
    """

    comparison: Comparison | None
    best: list[BestRate]
    failed: dict[str, str]
    rows: list[dict[str, Any]]


def collect_results(
    folder: Path, axes: Sequence[Axis], points: Sequence[Point], failed: Mapping[str, str], baseline: str | None = None
) -> Results:
    """Read the runs of a sweep.

    Args:
        folder: of the sweep.
        axes: what it varies.
        points: its runs.
        failed: the name of each run that failed without a summary -> why.
        baseline: the name of the run that speed-ups refer to; the first where it has no folder, since it failed.

    Raises:
        Mistake: a run folder is damaged.
    """
    runs = {}
    for point in points:
        path = folder / RUNS / point.name
        if (path / "config.toml").is_file():
            runs[point.name] = read_run(path)
    why = {name: run.end["failure"] for name, run in runs.items() if run.end.get("failure")} | dict(failed)
    good = {name: run for name, run in runs.items() if name not in why}
    present = {name for point in points if point.name in runs for name in (point.name, point.name_without_seed)}
    comparison = compare(list(runs.values()), None, baseline if baseline in present else None) if runs else None
    return Results(comparison, find_best_rates(axes, points, good), why, sweep_rows(points, comparison, why))


def write_results(folder: Path, file: Path, axes: Sequence[Axis], points: Sequence[Point], results: Results) -> None:
    """Write sweep.csv and report.html.

    Raises:
        Mistake: they cannot be written.
    """
    write_file(folder / TABLE_FILE, format_csv(results.rows).encode())
    rates = [axis.key for axis in axes if axis.is_learning_rate]
    best = [str(each) for each in results.best]
    page = sweep_page(file.name, len(points), results.comparison, rates, best, results.failed)
    write_file(folder / REPORT_FILE, page.encode())


def sweep_rows(
    points: Sequence[Point], comparison: Comparison | None, failed: Mapping[str, str]
) -> list[dict[str, Any]]:
    """Return a row for each point: its name, the keys that are varied, and its results as plain numbers."""
    runs: dict[str, Run] = {} if comparison is None else {run.name: run for run in comparison.runs}
    metrics = list_metrics(run.end for run in runs.values())
    rows = []
    for point in points:
        found: dict[str, Any] = {"state": "not finished", "why": None} | dict.fromkeys(_RESULTS)
        if comparison is not None:
            first = runs.get(point.name, comparison.runs[0])
            found = run_results(first, None, comparison.baseline, metrics)
            if point.name not in runs:
                found = dict.fromkeys(found) | {"state": "not finished"}
        if point.name in failed:
            found |= {"state": "failed", "why": failed[point.name]}
        rows.append({"run": point.name} | dict(point.values) | found)
    return rows
