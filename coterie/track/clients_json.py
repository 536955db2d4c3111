"""clients.json: how many examples each client holds, and of which labels. It never holds an example.

Legend: n examples of a client.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from coterie.track.file_writing import to_json

if TYPE_CHECKING:
    from coterie.core.examples import Clients, Examples

MAX_LAZY_CLIENTS = 10_000
"""Clients whose examples are made on demand are counted only if there are at most this many of them."""


def describe_clients(clients: Clients, model_of: Callable[[str], str] | None = None) -> list[dict[str, Any]]:
    """Return each client's id, its number of examples, and its number of examples of each label that it holds.

    `label_counts` is null where an example has no single class label. Both numbers are null for a large population
    whose examples are made on demand.

    Args:
        clients: client -> examples.
        model_of: client -> the name of its model, which is then described too.

    >>> import torch
    >>> from coterie.core.examples import Examples
    >>> describe_clients({"a": Examples(torch.zeros(3, 1), torch.tensor([2, 0, 2]))})
    [{'id': 'a', 'examples': 3, 'label_counts': {'0': 1, '2': 2}}]
    """
    clients_json: list[dict[str, Any]]
    if not isinstance(clients, dict) and len(clients) > MAX_LAZY_CLIENTS:
        clients_json = [{"id": c, "examples": None, "label_counts": None} for c in clients]
    else:
        clients_json = [{"id": c, "examples": len(e), "label_counts": _label_counts(e)} for c, e in clients.items()]
    if model_of is None:
        return clients_json
    return [{**client, "model": model_of(client["id"])} for client in clients_json]


def _label_counts(examples: Examples) -> dict[str, int] | None:
    """Return label -> number of examples; None where an example has no single class label."""
    import torch

    y = examples.y
    if y is None or y.dim() != 1 or y.is_floating_point():
        return None
    labels, counts = torch.unique(y if examples.rows is None else y[examples.rows], return_counts=True)
    return {str(label): count for label, count in zip(labels.tolist(), counts.tolist(), strict=True)}


def format_clients(clients: list[dict[str, Any]]) -> str:
    """Return the text of clients.json: a JSON list with one client a line."""
    return "[\n" + ",\n".join(to_json(client) for client in clients) + "\n]\n"
