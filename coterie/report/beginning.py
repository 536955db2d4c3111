"""Where a run's models began, if that is not at initial weights of their own."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from coterie.core.errors import few
from coterie.report import html
from coterie.report.read import Run
from coterie.report.words import share

SHOWN = 6
"""So many names are written out."""


def beginning(run: Run) -> str | None:
    """A table for each model; nothing where there is nothing to say."""
    tables = [html.table(_rows(start), [start["model"], ""]) for start in run.start]
    return "".join(tables) or None


def _rows(start: Mapping[str, Any]) -> list[tuple[str, str]]:
    loaded = start["loaded"] or {}
    resized = [f"{name} ({was} there, {now} here)" for name, (was, now) in loaded.get("resized", {}).items()]
    rows = {
        "weights from": loaded.get("source"),
        "SHA-256": loaded.get("sha256"),
        "loaded": loaded and f"{len(loaded['loaded'])} of {loaded['total']} tensors",
        "names without": loaded.get("prefix"),
        "of another size": few(resized, SHOWN),
        "new": few(loaded.get("new", ()), SHOWN),
        "not used": few(loaded.get("skipped", ()), SHOWN),
        "frozen": start["frozen"] and f"{few(start['frozen'], SHOWN)}: {start['size']:,} of {start['total']:,} numbers",
        "accuracy before the first round": start["test_accuracy"] is not None and share(start["test_accuracy"]),
    }
    return [(name, text) for name, text in rows.items() if text]
