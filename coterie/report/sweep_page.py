"""The page of a sweep: which setting is best, how the result depends on the learning rate, and all curves."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from html import escape
from typing import Any

from coterie.report import page_parts
from coterie.report.comparison import Comparison
from coterie.report.comparison_page import comparison_parts
from coterie.report.formats import format_setting
from coterie.report.line_chart import Curve, line_chart
from coterie.report.run_reader import Run
from coterie.report.seed_groups import Mean, SeedGroup
from coterie.report.sweep_folder import RUNS
from coterie.track.checksums import REPORT_FILE


def sweep_page(
    name: str,
    total: int,
    comparison: Comparison | None,
    rates: Sequence[str],
    best: Sequence[str],
    failed: Mapping[str, str],
) -> str:
    """Return the page of a sweep as HTML.

    Args:
        name: of the experiment's file.
        total: how many runs the grid has.
        comparison: of the runs that have begun; None where none has.
        rates: the keys of the learning rates that are tuned.
        best: a sentence on the best learning rate of each setting.
        failed: the name of each run that failed -> why.
    """
    runs = [] if comparison is None else comparison.runs
    done = sum(1 for run in runs if run.over and run.name not in failed)
    count = f"{done} of {total} finished" + (f", {len(failed)} failed" if failed else "")
    links = {run.name: f"{RUNS}/{run.name}/{REPORT_FILE}".replace("%", "%25") for run in runs if _has_report(run)}
    return page_parts.document(
        f"Sweep of {name}",
        [
            f"<h1>Sweep of {escape(name)}: {total} runs</h1>",
            f"<p class=soft>{count}. A click on a column's head sorts.</p>",
            *(_failure(run, why) for run, why in failed.items()),
            *(f"<p><b>{escape(sentence[:1].upper() + sentence[1:])}.</b></p>" for sentence in best),
            *([] if comparison is None else _by_rate(comparison, rates)),
            *([] if comparison is None else comparison_parts(comparison, links)),
        ],
    )


def _has_report(run: Run) -> bool:
    return (run.folder / REPORT_FILE).is_file()


def _failure(run: str, why: str) -> str:
    return f"<p class=failed><b>{escape(run)} failed: {escape(why)}.</b></p>"


def _by_rate(comparison: Comparison, rates: Sequence[str]) -> list[str]:
    """Return a section for each learning rate: the accuracy and the rounds to the target against it."""
    sections = []
    for rate in rates:
        groups = [group for group in comparison.groups if isinstance(group.settings.get(rate), int | float)]
        accuracy = _curves(groups, rate, {id(group): group.mean_of("test_accuracy") for group in groups})
        rounds = _curves(groups, rate, {id(group): group.rounds_to(comparison.target) for group in groups})
        charts = page_parts.side_by_side(
            line_chart(accuracy, rate, "test accuracy", log_x=True),
            line_chart(rounds, rate, "rounds to target", log_x=True),
        )
        sections.append(page_parts.section(f"By {rate}", charts))
    return sections


def _curves(groups: Sequence[SeedGroup], rate: str, means: Mapping[int, Mean | None]) -> list[Curve]:
    """Return a curve of means over the rate for each setting of the other keys, with a band where there are seeds."""
    lines: dict[str, list[tuple[float, Mean]]] = {}
    for group in groups:
        mean = means[id(group)]
        others: dict[str, Any] = {key: value for key, value in group.settings.items() if key != rate}
        label = ", ".join(f"{key} = {format_setting(value)}" for key, value in others.items())
        if mean is not None:
            lines.setdefault(label, []).append((float(group.settings[rate]), mean))
    return [_curve(label, sorted(points)) for label, points in lines.items()]


def _curve(label: str, points: Sequence[tuple[float, Mean]]) -> Curve:
    band = [(mean.value - (mean.error or 0.0), mean.value + (mean.error or 0.0)) for _, mean in points]
    return Curve(label, [x for x, _ in points], [mean.value for _, mean in points], band)
