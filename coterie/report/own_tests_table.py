"""A table of what was measured on each client's own test data in the last round that was evaluated."""

from __future__ import annotations

from typing import Any

from coterie.report import page_parts
from coterie.report.formats import format_interval
from coterie.report.run_reader import Run
from coterie.track.measures import list_metrics, name_metric


def own_tests_table(run: Run) -> str | None:
    """Return the table as HTML: a row for each client, a column for each measure; None where there are none."""
    last = next((record for record in reversed(run.rounds) if record["test_loss"] is not None), {})
    each: dict[str, dict[str, Any]] = last.get("own_tests") or {}
    if not each:
        return None
    names = ["test_loss", *(["test_accuracy"] if any("test_accuracy" in found for found in each.values()) else [])]
    names += list_metrics(each.values())
    rows = [[client, found["examples"], *(_cell(found, name) for name in names)] for client, found in each.items()]
    note = "In brackets: the 95 % interval, over the draw of the test examples; none where all scores are in order."
    has_intervals = any(found.get("intervals") for found in each.values())
    table = page_parts.table(rows, ["client", "examples", *map(name_metric, names)])
    return table + (f"<p class=soft>{note}</p>" if has_intervals else "")


def _cell(found: dict[str, Any], name: str) -> str:
    """Return a client's measure, with its interval where it has one, or why it is not defined."""
    why = found.get("undefined", {}).get(name)
    return f"none: {why}" if why else format_interval(found.get(name), (found.get("intervals") or {}).get(name))
