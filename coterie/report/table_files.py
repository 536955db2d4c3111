"""Write a comparison as a file for other programs: CSV with plain numbers, or a LaTeX table for a paper."""

from __future__ import annotations

import csv
import io
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from coterie.report.comparison import Comparison, list_further_results, run_results
from coterie.report.formats import format_setting
from coterie.report.seed_groups import Mean
from coterie.track.measures import list_metrics, name_metric

_LATEX = {
    **{letter: f"\\{letter}" for letter in "&%$#_{}"},
    "\\": r"\textbackslash{}",
    "~": r"\textasciitilde{}",
    "^": r"\textasciicircum{}",
}


def comparison_rows(comparison: Comparison) -> list[dict[str, Any]]:
    """Return a row for each run: its name, the settings that differ, and the results as plain numbers."""
    metrics = list_further_results(comparison.runs)
    return [
        {"run": name}
        | {key: run.config.get(key) for key in comparison.keys}
        | run_results(run, comparison.target, comparison.baseline, metrics)
        for name, run in zip(comparison.names, comparison.runs, strict=True)
    ]


def format_csv(rows: Sequence[Mapping[str, Any]]) -> str:
    """Return rows as CSV, under the names of the first row's values; None is an empty cell.

    >>> print(format_csv([{"run": "a", "hidden": [32, 32], "best": 0.5}, {"run": "b", "hidden": [64], "best": None}]))
    run,hidden,best
    a,"[32, 32]",0.5
    b,[64],
    <BLANKLINE>
    """
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(rows[0])
    for row in rows:
        writer.writerow("" if value is None else format_setting(value) for value in row.values())
    return text.getvalue()


def format_latex(comparison: Comparison) -> str:
    r"""Return a table with the rules of booktabs: a line for each group of runs, and speed-ups as the papers have them.

    The document needs \usepackage{booktabs}. A line has the settings that differ, the test accuracy in per cent, and
    the rounds to the target with the speed-up in brackets; all are means over rng seeds with their standard errors.
    """
    metrics = list_metrics(run.end for run in comparison.runs)
    keys = [key for key in comparison.keys if any(key in group.settings for group in comparison.groups)]
    named = keys or ["run"]
    results = ["test accuracy (%)", *map(name_metric, metrics), "rounds to target"]
    lines = [
        "% needs \\usepackage{booktabs}",
        f"\\begin{{tabular}}{{{'l' * len(named)}{'r' * len(results)}}}",
        "\\toprule",
        _line(map(escape_latex, [*named, *results])),
        "\\midrule",
    ]
    for group in comparison.groups:
        settings = [format_setting(group.settings.get(key, "-")) for key in keys] or [group.name]
        rounds = _number(group.rounds_to(comparison.target), digits=0)
        ratio = None if group is comparison.baseline else comparison.speed_up(group)
        rounds += "" if ratio is None else f" (${ratio:.1f}\\times$)"
        accuracy = _number(group.mean_of("test_accuracy"), 100)
        further = [_number(group.mean_of(name), digits=3) for name in metrics]
        lines.append(_line([*map(escape_latex, settings), accuracy, *further, rounds]))
    return "\n".join([*lines, "\\bottomrule", "\\end{tabular}", ""])


def _line(cells: Iterable[str]) -> str:
    return " & ".join(cells) + " \\\\"


def _number(mean: Mean | None, scale: float = 1.0, digits: int = 2) -> str:
    """Return a mean with its standard error as a formula; "--" where there is none."""
    if mean is None:
        return "--"
    if mean.error is None:
        return f"{scale * mean.value:.{digits}f}"
    return f"${scale * mean.value:.{digits}f} \\pm {scale * mean.error:.{digits or 1}f}$"


def escape_latex(text: str) -> str:
    r"""Return text as LaTeX shows it.

    >>> print(escape_latex("data.num_clients & 5 %"))
    data.num\_clients \& 5 \%
    """
    return "".join(_LATEX.get(letter, letter) for letter in text)
