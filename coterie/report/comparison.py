"""In what runs differ, and how they ended: as rows for any table, and as a page with their curves overlaid."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from coterie.core.errors import Mistake
from coterie.report import html
from coterie.report.charts import Curve, curves
from coterie.report.page import once, sent, series
from coterie.report.read import Run, read_run
from coterie.report.words import duration, share, size, value
from coterie.track import rounds_to_target
from coterie.track.summary import accuracy_curve

FEW = 4
"""So many runs are shown side by side."""


@dataclass(frozen=True)
class Comparison:
    """Runs side by side.

    Attributes:
        names: of the runs, no two alike.
        head: what each run is compared by: its name, the keys that differ, and how it ended.
        rows: these of each run.
    """

    runs: list[Run]
    names: list[str]
    head: list[str]
    rows: list[list[str]]

    def table(self) -> list[list[str]]:
        """The comparison as lines of a table, the first of them its head: a column for each run where they are few, and
        a line for each where they are many.
        """
        lines = [self.head, *self.rows]
        return [list(column) for column in zip(*lines, strict=True)] if len(self.runs) <= FEW else lines


def compared(folders: Sequence[Path], target: float | None = None) -> Comparison:
    """Run folders side by side.

    Args:
        folders: two or more.
        target: the accuracy to count rounds to, above 0 and at most 1; by default each run's own target.

    Raises:
        Mistake: there are fewer than two, one is no run folder, or the target is no accuracy.
    """
    if len(folders) < 2:
        raise Mistake(f"coterie compare {folders[0] if folders else ''}: give two run folders or more")
    if target is not None and not 0 < target <= 1:
        raise Mistake(f"--target {target:g}: it must be an accuracy, above 0 and at most 1")
    runs = [read_run(folder) for folder in folders]
    names = _names(runs)
    keys = _differing(runs)
    ends = ["state", "rounds done", "test accuracy", "best", "rounds to target", "sent", "time"]
    rows = [
        [name, *(value(run.config.get(key, "-")) for key in keys), *_end(run, target)]
        for name, run in zip(names, runs, strict=True)
    ]
    return Comparison(runs, names, ["run", *keys, *ends], rows)


def _names(runs: Sequence[Run]) -> list[str]:
    """The folders' names, or where two are alike their paths."""
    short = [run.name for run in runs]
    return short if len(set(short)) == len(short) else [str(run.folder) for run in runs]


def _differing(runs: Sequence[Run]) -> list[str]:
    keys = list(dict.fromkeys(key for run in runs for key in run.config))
    tables = list(dict.fromkeys(key.rpartition(".")[0] for key in keys))
    differing = [key for key in keys if any(run.config.get(key) != runs[0].config.get(key) for run in runs)]
    return sorted(differing, key=lambda key: tables.index(key.rpartition(".")[0]))


def _end(run: Run, target: float | None) -> list[str]:
    reached = run.end["rounds_to_target"] if target is None else rounds_to_target(accuracy_curve(run.rounds), target)
    return [
        "finished" if run.over else "not finished",
        str(run.end["rounds"]),
        share(run.end["test_accuracy"]),
        share(run.end["best_test_accuracy"]),
        "-" if reached is None else f"{reached:.1f}",
        size(once(run) + run.end["bytes_up"] + run.end["bytes_down"]),
        duration(run.end["elapsed"]),
    ]


def write_comparison(comparison: Comparison, path: Path) -> Path:
    """Write the comparison as a page, and return its path.

    Raises:
        Mistake: the page cannot be written.
    """
    return html.write(path, page(comparison))


def page(comparison: Comparison) -> str:
    """The page of a comparison."""
    (head, *rows), key = comparison.table(), html.keys(comparison.names)
    return html.document(
        "Comparison of " + ", ".join(comparison.names),
        [
            f"<h1>{len(comparison.runs)} runs compared</h1>",
            "<p class=soft>First the settings in which they differ, then how they ended.</p>",
            html.section("Settings and results", html.table(rows, head)),
            html.section("Accuracy", key, _charts(comparison, "test_accuracy", "test accuracy")),
            html.section("Training loss", key, _charts(comparison, "train_loss", "train loss")),
        ],
    )


def _charts(comparison: Comparison, measure: str, label: str) -> str | None:
    named = list(zip(comparison.names, comparison.runs, strict=True))
    by_round = [Curve(n, [r["round"] for r in run.rounds], series(run.rounds, measure)) for n, run in named]
    by_bytes = [Curve(n, sent(run), series(run.rounds, measure)) for n, run in named]
    by_time = [Curve(n, [r["elapsed"] for r in run.rounds], series(run.rounds, measure)) for n, run in named]
    return html.charts(
        curves(by_round, "round", label, legend=False),
        curves(by_bytes, "sent so far", label, x_bytes=True, legend=False),
        curves(by_time, "seconds", label, legend=False),
    )
