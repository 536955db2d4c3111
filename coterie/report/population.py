"""Who would hold what, on a page of its own: before anything is run."""

from __future__ import annotations

from collections.abc import Sequence
from html import escape
from pathlib import Path
from typing import Any

from coterie.report import html
from coterie.report.holdings import MOST_CLIENTS, called, holdings
from coterie.report.page import population


def write_population(
    clients: Sequence[dict[str, Any]], title: str, path: Path, names: Sequence[str] | None = None
) -> Path:
    """Write a page with a chart and a table of the clients, as clients.json has them, and return its path; `names` are
    the labels'.

    Raises:
        Mistake: the page cannot be written.
    """
    rows = [(c["id"], c["examples"], held(c["label_counts"], names)) for c in clients[:MOST_CLIENTS]]
    more = f"<p class=soft>and {len(clients) - MOST_CLIENTS:,} more</p>" if len(clients) > MOST_CLIENTS else None
    parts = [
        f"<h1>{escape(title)}</h1>",
        html.section("Who holds what", population(clients), holdings(clients, names)),
        html.section("One by one", html.table(rows, ("client", "examples", "of each label")), more),
    ]
    return html.write(path, html.document(title, parts))


def held(counts: dict[str, int] | None, names: Sequence[str] | None = None) -> str:
    """How many examples of each label, in a line.

    >>> held({"0": 2, "1": 1}), held({"0": 2, "1": 1}, ["ill", "well"])
    ('0: 2, 1: 1', 'ill: 2, well: 1')
    """
    return "-" if counts is None else ", ".join(f"{called(label, names)}: {n}" for label, n in counts.items())
