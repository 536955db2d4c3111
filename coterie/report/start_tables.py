"""Tables of the weights that a run's models began with, where these are not initial weights of their own."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from coterie.core.errors import few
from coterie.report import page_parts
from coterie.report.formats import format_percent
from coterie.report.run_reader import Run

MAX_NAMES = 6
"""Of a longer list of tensors, only the first are named."""


def start_tables(run: Run) -> str | None:
    """Return tables of where each model's weights came from; None if all began with initial weights of their own."""
    tables = [page_parts.table(_start_rows(start), [start["model"], ""]) for start in run.start]
    return "".join(tables) or None


def _start_rows(start: Mapping[str, Any]) -> list[tuple[str, str]]:
    """Return the rows (name, text) of one model's table from its entry in start.json, without empty ones."""
    loaded = start["loaded"] or {}
    resized = [f"{name} ({there} there, {here} here)" for name, (there, here) in loaded.get("resized", {}).items()]
    frozen, accuracy = start["frozen"], start["test_accuracy"]
    rows = {
        "weights from": loaded.get("source"),
        "SHA-256": loaded.get("sha256"),
        "loaded": loaded and f"{len(loaded['loaded'])} of {loaded['total']} tensors",
        "prefix of the names there": loaded.get("prefix"),
        "not loaded: another shape there": few(resized, MAX_NAMES),
        "initial values kept": few(loaded.get("new", ()), MAX_NAMES),
        "not used": few(loaded.get("skipped", ()), MAX_NAMES),
        "frozen": frozen and f"{few(frozen, MAX_NAMES)}: {start['size']:,} of {start['total']:,} numbers",
        "accuracy before the first round": accuracy is not None and format_percent(accuracy),
    }
    return [(name, text) for name, text in rows.items() if text]
