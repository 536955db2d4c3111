"""The page of a comparison: the settings that differ, the results, and the curves with a band over rng seeds."""

from __future__ import annotations

from collections.abc import Mapping
from html import escape
from pathlib import Path

from coterie.report import page_parts
from coterie.report.comparison import Comparison
from coterie.report.line_chart import line_chart
from coterie.report.sortable_table import sortable_table
from coterie.track.measures import list_metrics, name_metric

BANDS = (
    "A curve is the mean of the runs that differ in their rng seed alone, over the rounds that all of them measured; "
    "its band is one standard error to each side."
)


def write_comparison(comparison: Comparison, path: Path) -> Path:
    """Write the comparison as a page, and return its path.

    Raises:
        Mistake: the page cannot be written.
    """
    return page_parts.write_chosen(path, comparison_page(comparison))


def comparison_page(comparison: Comparison) -> str:
    """Return the page of a comparison as HTML."""
    return page_parts.document(
        "Comparison of " + ", ".join(comparison.names),
        [
            f"<h1>{len(comparison.runs)} runs compared</h1>",
            "<p class=soft>The settings that differ, then the results. A click on a column's head sorts.</p>",
            *comparison_parts(comparison),
        ],
    )


def comparison_parts(comparison: Comparison, links: Mapping[str, str] | None = None) -> list[str]:
    """Return the tables and charts of a comparison, as HTML.

    Args:
        comparison: what is shown.
        links: from a run's name to where its report is.
    """
    runs, groups = comparison.runs, comparison.groups
    legend = page_parts.legend([group.name for group in groups])
    means = comparison.table_of_means()
    speed_ups = comparison.explain_speed_ups()
    bands = f"<p class=soft>{BANDS}</p>" if means else None
    metrics = list_metrics(record for run in runs for record in run.rounds)
    return [
        f"<p class=soft>{escape(speed_ups[:1].upper() + speed_ups[1:])}.</p>" if speed_ups else "",
        page_parts.section("Means over rng seeds", sortable_table(means[0], means[1:])) if means else "",
        page_parts.section("Settings and results", sortable_table(comparison.head, comparison.rows, links)),
        page_parts.section("Accuracy", legend, bands, _charts(comparison, "test_accuracy", "test accuracy")),
        *(
            page_parts.section(name_metric(name), legend, bands, _charts(comparison, name, name_metric(name)))
            for name in metrics
        ),
        page_parts.section("Training loss", legend, bands, _charts(comparison, "train_loss", "training loss")),
    ]


def _charts(comparison: Comparison, measure: str, label: str) -> str | None:
    """Return charts of a measure over rounds, bytes sent and time, with a curve for each group of runs."""
    groups = comparison.groups
    by_round = [group.curve(measure, lambda run: [r["round"] for r in run.rounds]) for group in groups]
    by_bytes = [group.curve(measure, lambda run: run.bytes_so_far()) for group in groups]
    by_time = [group.curve(measure, lambda run: [r["elapsed"] for r in run.rounds]) for group in groups]
    return page_parts.side_by_side(
        line_chart(by_round, "round", label, legend=False),
        line_chart(by_bytes, "sent so far", label, x_bytes=True, legend=False),
        line_chart(by_time, "seconds", label, legend=False),
    )
