"""Compare runs: the settings that differ and the results, as rows of a table and as a page with all their curves."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from coterie.core.errors import Mistake, require
from coterie.report import page_parts
from coterie.report.charts import Curve, line_chart
from coterie.report.formats import format_bytes, format_duration, format_number, format_percent, format_setting
from coterie.report.run_reader import Run, mistakes_about_shapes, read_run
from coterie.track import rounds_to_target
from coterie.track.measures import list_metrics, name_metric
from coterie.track.summary import accuracy_curve

MAX_COLUMNS = 4
"""Up to this many runs have a column each; more have a line each."""


@dataclass(frozen=True)
class Comparison:
    """Several runs, with the settings that differ and the results.

    Attributes:
        names: of the runs, no two alike.
        head: the names of a row's cells: "run", the keys that differ, and the results.
        rows: the cells of each run.
    """

    runs: list[Run]
    names: list[str]
    head: list[str]
    rows: list[list[str]]

    def table(self) -> list[list[str]]:
        """Return the lines of a table, with the head as its first line or, for few runs, as its first column."""
        lines = [self.head, *self.rows]
        return [list(column) for column in zip(*lines, strict=True)] if len(self.runs) <= MAX_COLUMNS else lines


def compare_runs(folders: Sequence[Path], target: float | None = None) -> Comparison:
    """Read two or more run folders, and return the settings that differ and the results.

    Args:
        folders: two or more.
        target: the accuracy to count rounds to, above 0 and at most 1; by default each run's own target.

    Raises:
        Mistake: there are fewer than two folders, one is not a run folder, or the target is not an accuracy.
    """
    if len(folders) < 2:
        only = f", and got only {folders[0]}" if folders else ""
        raise Mistake(f"a comparison needs two run folders or more{only}")
    require("target", target, target is None or 0 < target <= 1, "an accuracy, above 0 and at most 1")
    runs = []
    for folder in folders:
        with mistakes_about_shapes(folder):
            runs.append(read_run(folder))
    names = _unique_names(runs)
    keys = _keys_that_differ(runs)
    metrics = list_metrics(run.end for run in runs)
    names_of_metrics = [name_metric(name) for name in metrics]
    results = ["state", "rounds done", "test accuracy", "best", *names_of_metrics, "rounds to target", "sent", "time"]
    rows = []
    for name, run in zip(names, runs, strict=True):
        with mistakes_about_shapes(run.folder):
            settings = [format_setting(run.config.get(key, "-")) for key in keys]
            rows.append([name, *settings, *_result_cells(run, target, metrics)])
    return Comparison(runs, names, ["run", *keys, *results], rows)


def _unique_names(runs: Sequence[Run]) -> list[str]:
    """Return the folders' names, or all folders' paths if two names are alike."""
    names = [run.name for run in runs]
    return names if len(set(names)) == len(names) else [str(run.folder) for run in runs]


def _keys_that_differ(runs: Sequence[Run]) -> list[str]:
    """Return the keys whose values are not the same in all runs, table by table."""
    keys = list(dict.fromkeys(key for run in runs for key in run.config))
    tables = list(dict.fromkeys(key.rpartition(".")[0] for key in keys))
    differing = [key for key in keys if any(run.config.get(key) != runs[0].config.get(key) for run in runs)]
    return sorted(differing, key=lambda key: tables.index(key.rpartition(".")[0]))


def _result_cells(run: Run, target: float | None, metrics: Sequence[str]) -> list[str]:
    """Return a run's results as cells of the table; `target`, if given, replaces the run's own target."""
    reached = run.end["rounds_to_target"] if target is None else rounds_to_target(accuracy_curve(run.rounds), target)
    return [
        "failed" if run.end.get("failure") else "finished" if run.over else "not finished",
        str(run.end["rounds"]),
        format_percent(run.end["test_accuracy"]),
        format_percent(run.end["best_test_accuracy"]),
        *(format_number(run.end.get(name)) for name in metrics),
        "-" if reached is None else f"{reached:.1f}",
        format_bytes(run.bytes_once + run.end["bytes_up"] + run.end["bytes_down"]),
        format_duration(run.end["elapsed"]),
    ]


def write_comparison(comparison: Comparison, path: Path) -> Path:
    """Write the comparison as a page, and return its path.

    Raises:
        Mistake: the page cannot be written.
    """
    return page_parts.write_page(path, comparison_page(comparison))


def comparison_page(comparison: Comparison) -> str:
    """Return the page of a comparison as HTML."""
    (head, *rows), legend = comparison.table(), page_parts.legend(comparison.names)
    return page_parts.document(
        "Comparison of " + ", ".join(comparison.names),
        [
            f"<h1>{len(comparison.runs)} runs compared</h1>",
            "<p class=soft>The settings that differ, then the results.</p>",
            page_parts.section("Settings and results", page_parts.table(rows, head)),
            page_parts.section("Accuracy", legend, _charts(comparison, "test_accuracy", "test accuracy")),
            *(
                page_parts.section(name_metric(name), legend, _charts(comparison, name, name_metric(name)))
                for name in list_metrics(record for run in comparison.runs for record in run.rounds)
            ),
            page_parts.section("Training loss", legend, _charts(comparison, "train_loss", "training loss")),
        ],
    )


def _charts(comparison: Comparison, measure: str, label: str) -> str | None:
    """Return charts of a measure over rounds, bytes sent and time, with a curve for each run."""
    pairs = list(zip(comparison.names, comparison.runs, strict=True))
    by_round = [Curve(n, [r["round"] for r in run.rounds], run.measure(measure)) for n, run in pairs]
    by_bytes = [Curve(n, run.bytes_so_far(), run.measure(measure)) for n, run in pairs]
    by_time = [Curve(n, [r["elapsed"] for r in run.rounds], run.measure(measure)) for n, run in pairs]
    return page_parts.side_by_side(
        line_chart(by_round, "round", label, legend=False),
        line_chart(by_bytes, "sent so far", label, x_bytes=True, legend=False),
        line_chart(by_time, "seconds", label, legend=False),
    )
