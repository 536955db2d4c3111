"""A page of the clients and their data, which needs no run."""

from __future__ import annotations

from collections.abc import Sequence
from html import escape
from pathlib import Path
from typing import Any

from coterie.report import page_parts
from coterie.report.clients_chart import MAX_CLIENTS, clients_chart, label_name


def write_clients_page(
    clients: Sequence[dict[str, Any]], title: str, path: Path, names: Sequence[str] | None = None
) -> Path:
    """Write a page with a chart and a table of the clients, and return its path.

    Args:
        clients: as in clients.json.
        title: of the page.
        path: where it is written.
        names: of the labels, where they have names.

    Raises:
        Mistake: the page cannot be written.
    """
    rows = [(c["id"], c["examples"], format_counts(c["label_counts"], names)) for c in clients[:MAX_CLIENTS]]
    more = f"<p class=soft>and {len(clients) - MAX_CLIENTS:,} more</p>" if len(clients) > MAX_CLIENTS else None
    chart = page_parts.scrollable(clients_chart(clients, names), "data of the clients")
    parts = [
        f"<h1>{escape(title)}</h1>",
        page_parts.section("Data of the clients", clients_sentence(clients), chart),
        page_parts.section("Each client", page_parts.table(rows, ("client", "examples", "of each label")), more),
    ]
    return page_parts.write_chosen(path, page_parts.document(title, parts))


def clients_sentence(clients: Sequence[dict[str, Any]], total: int | None = None) -> str | None:
    """Return a sentence, as HTML, on how many clients there are and how many examples they hold; None without clients.

    Args:
        clients: as in clients.json.
        total: the number of all clients, where `clients` may be a part of them.
    """
    sizes = sorted(c["examples"] for c in clients if c["examples"] is not None)
    if not sizes:
        return f"<p>{len(clients)} clients.</p>" if clients else None
    median = sizes[len(sizes) // 2]
    part = f"{total:,} clients; those that were asked first are shown. " if total and total > len(sizes) else ""
    return (
        f"<p>{part}{len(sizes):,} clients with {sum(sizes):,} examples together; "
        f"the smallest holds {sizes[0]:,}, the median {median:,}, the largest {sizes[-1]:,}.</p>"
    )


def format_counts(counts: dict[str, int] | None, names: Sequence[str] | None = None) -> str:
    """Format how many examples there are of each label, in a line.

    >>> format_counts({"0": 2, "1": 1}), format_counts({"0": 2, "1": 1}, ["ill", "well"])
    ('0: 2, 1: 1', 'ill: 2, well: 1')
    """
    return "-" if counts is None else ", ".join(f"{label_name(label, names)}: {n}" for label, n in counts.items())
