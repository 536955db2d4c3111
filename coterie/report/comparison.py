"""Compare runs: the settings that differ and the results, as rows of a table, for each run and over rng seeds."""

from __future__ import annotations

import shlex
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from coterie.core.errors import Mistake, few, require
from coterie.report.formats import (
    format_bytes,
    format_duration,
    format_mean,
    format_number,
    format_percent,
    format_setting,
    format_speed_up,
)
from coterie.report.run_reader import Run, mistakes_about_shapes, read_run
from coterie.report.seed_groups import SeedGroup, count_rounds, group_runs, speed_up
from coterie.report.sweep_folder import expand_sweeps
from coterie.track.measures import list_metrics, name_metric

MAX_COLUMNS = 4
"""Up to this many runs have a column each; more have a line each."""


@dataclass(frozen=True)
class Comparison:
    """Several runs, with the settings that differ and the results.

    Attributes:
        names: of the runs, no two alike.
        keys: in which the runs differ.
        groups: the runs, those that differ in their rng seed alone together.
        baseline: whose rounds to the target are divided by those of the others.
        target: the accuracy to count rounds to; None for each run's own target.
        head: the names of a row's cells: "run", the keys that differ, and the results.
        rows: the cells of each run.
    """

    runs: list[Run]
    names: list[str]
    keys: list[str]
    groups: list[SeedGroup]
    baseline: SeedGroup
    target: float | None
    head: list[str]
    rows: list[list[str]]

    def table(self) -> list[list[str]]:
        """Return the lines of a table, with the head as its first line or, for few runs, as its first column."""
        lines = [self.head, *self.rows]
        return [list(column) for column in zip(*lines, strict=True)] if len(self.runs) <= MAX_COLUMNS else lines

    def table_of_means(self) -> list[list[str]]:
        """Return the lines of a table of the means over rng seeds, with its head; nothing where no two runs are alike.

        After each mean comes its standard error.
        """
        if len(self.groups) == len(self.runs):
            return []
        metrics = list_metrics(run.end for run in self.runs)
        keys = [key for key in self.keys if any(key in group.settings for group in self.groups)]
        results = ["test accuracy", "best", *map(name_metric, metrics), "rounds to target", "speed-up"]
        lines = [["settings", *keys, "seeds", *results]]
        for group in self.groups:
            shares = [format_mean(group.mean_of(name), 100, " %") for name in ("test_accuracy", "best_test_accuracy")]
            lines.append(
                [
                    group.name,
                    *(format_setting(group.settings.get(key, "-")) for key in keys),
                    str(len(group.runs)),
                    *shares,
                    *(format_mean(group.mean_of(name)) for name in metrics),
                    format_mean(group.rounds_to(self.target)),
                    format_speed_up(self.speed_up(group)),
                ]
            )
        return lines

    def speed_up(self, group: SeedGroup) -> float | None:
        """Return the baseline's mean rounds to the target / the group's; None where either did not reach it."""
        base, rounds = (each.rounds_to(self.target) for each in (self.baseline, group))
        return speed_up(base and base.value, rounds and rounds.value)

    def explain_speed_ups(self) -> str | None:
        """Return a sentence on what speed-ups are over, or why there are none; None where nothing reached a target."""
        reached = [group.name for group in self.groups if group.rounds_to(self.target) is not None]
        if not reached:
            return None
        base = self.baseline.rounds_to(self.target)
        if base is None:
            other = f"compare with another, such as --baseline {shlex.quote(reached[0])}"
            return f"no speed-ups, since the baseline {self.baseline.name} did not reach the target; {other}"
        return f"speed-ups are over {self.baseline.name}, which took {format_mean(base)} rounds to the target"


def compare_runs(folders: Sequence[Path], target: float | None = None, baseline: str | None = None) -> Comparison:
    """Read two or more run folders, and return the settings that differ and the results.

    Args:
        folders: run folders, two or more; a sweep's folder stands for those of its runs.
        target: the accuracy to count rounds to, above 0 and at most 1; by default each run's own target.
        baseline: the name of the run, or of the runs with different seeds, that the others' speed-ups refer to; by
            default the first.

    Raises:
        Mistake: there are fewer than two folders, one is not a run folder, the target is not an accuracy, or there is
            no such baseline.
    """
    folders = expand_sweeps(folders)
    if len(folders) < 2:
        only = f", and got only {folders[0]}" if folders else ""
        raise Mistake(f"a comparison needs two run folders or more{only}")
    require("target", target, target is None or 0 < target <= 1, "an accuracy, above 0 and at most 1")
    runs = []
    for folder in folders:
        with mistakes_about_shapes(folder):
            runs.append(read_run(folder))
    return compare(runs, target, baseline)


def compare(runs: Sequence[Run], target: float | None = None, baseline: str | None = None) -> Comparison:
    """Return the comparison of runs that have been read; see `compare_runs`."""
    names = _unique_names(runs)
    keys = _keys_that_differ(runs)
    groups = group_runs(runs, names, keys)
    base = _find_baseline(groups, names, runs, baseline)
    metrics = list_further_results(runs)
    names_of_metrics = [name_metric(name) for name in metrics]
    quality = ["test accuracy", "best", *names_of_metrics]
    results = ["state", "rounds done", *quality, "rounds to target", "speed-up", "sent", "time"]
    rows = []
    for name, run in zip(names, runs, strict=True):
        with mistakes_about_shapes(run.folder):
            settings = [format_setting(run.config.get(key, "-")) for key in keys]
            values = run_results(run, target, base, metrics)
            rows.append([name, *settings, *_result_cells(values, metrics)])
    return Comparison(list(runs), names, keys, groups, base, target, ["run", *keys, *results], rows)


def _find_baseline(
    groups: Sequence[SeedGroup], names: Sequence[str], runs: Sequence[Run], wanted: str | None
) -> SeedGroup:
    """Return the group of this name, or that has the run of this name; without a name the first.

    Raises:
        Mistake: there is none.
    """
    if wanted is None:
        return groups[0]
    for group in groups:
        if wanted == group.name or any(n == wanted and run in group.runs for n, run in zip(names, runs, strict=True)):
            return group
    allowed = f"the name of a run, or of runs with different seeds: {few([group.name for group in groups], 6)}"
    raise Mistake(key="baseline", value=wanted, allowed=allowed)


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


def list_further_results(runs: Sequence[Run]) -> list[str]:
    """Return the names of further results in summary.json: of metrics, and epsilon where a run states one."""
    return [*list_metrics(run.end for run in runs), *(["epsilon"] if any("epsilon" in run.end for run in runs) else [])]


def run_results(run: Run, target: float | None, baseline: SeedGroup, metrics: Iterable[str]) -> dict[str, Any]:
    """Return a run's results by name, as plain numbers; None where there is none.

    Args:
        run: finished or not.
        target: replaces the run's own target, if given.
        baseline: whose mean rounds to the target are divided by this run's.
        metrics: the names of further results in summary.json.
    """
    base, rounds = baseline.rounds_to(target), count_rounds(run, target)
    return {
        "state": "failed" if run.end.get("failure") else "finished" if run.over else "not finished",
        "why": run.end.get("failure"),
        "rounds": run.end["rounds"],
        "test_accuracy": run.end["test_accuracy"],
        "best_test_accuracy": run.end["best_test_accuracy"],
        "test_loss": run.end.get("test_loss"),
        **{name: run.end.get(name) for name in metrics},
        "rounds_to_target": rounds,
        "speed_up": speed_up(base and base.value, rounds),
        "bytes_up": run.end["bytes_up"],
        "bytes_down": run.end["bytes_down"],
        "bytes_once": run.bytes_once,
        "elapsed": run.end["elapsed"],
    }


def _result_cells(values: Mapping[str, Any], metrics: Iterable[str]) -> list[str]:
    """Return a run's results as cells of the table."""
    rounds = values["rounds_to_target"]
    return [
        values["state"],
        str(values["rounds"]),
        format_percent(values["test_accuracy"]),
        format_percent(values["best_test_accuracy"]),
        *(format_number(values[name]) for name in metrics),
        "-" if rounds is None else f"{rounds:.1f}",
        format_speed_up(values["speed_up"]),
        format_bytes(values["bytes_once"] + values["bytes_up"] + values["bytes_down"]),
        format_duration(values["elapsed"]),
    ]
