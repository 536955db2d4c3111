"""clients.json: who holds what, in numbers; never an example.

Legend: n examples of a client.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch

from coterie.core.examples import Clients, Examples
from coterie.track.writing import as_json

MOST_ON_DEMAND = 10_000
"""Clients whose examples are made when they are looked up are looked up only if there are no more of them than this."""


def described(clients: Clients, model_of: Callable[[str], str] | None = None) -> list[dict[str, Any]]:
    """For each client its id, its number of examples, and how many of them carry each label it holds; and where
    `model_of` says it, the name of its model.

    `label_counts` is null where an example has no single class label; both are null for the clients of a large
    population whose examples are made on demand.

    >>> described({"a": Examples(torch.zeros(3, 1), torch.tensor([2, 0, 2]))})
    [{'id': 'a', 'examples': 3, 'label_counts': {'0': 1, '2': 2}}]
    """
    if not isinstance(clients, dict) and len(clients) > MOST_ON_DEMAND:
        found: list[dict[str, Any]] = [{"id": c, "examples": None, "label_counts": None} for c in clients]
    else:
        found = [{"id": c, "examples": len(held), "label_counts": _label_counts(held)} for c, held in clients.items()]
    return found if model_of is None else [{**client, "model": model_of(client["id"])} for client in found]


def _label_counts(examples: Examples) -> dict[str, int] | None:
    y = examples.y
    if y is None or y.dim() != 1 or y.is_floating_point():
        return None
    labels, counts = torch.unique(y if examples.rows is None else y[examples.rows], return_counts=True)
    return {str(label): count for label, count in zip(labels.tolist(), counts.tolist(), strict=True)}


def text(clients: list[dict[str, Any]]) -> str:
    """The file: one client a line."""
    return "[\n" + ",\n".join(as_json(client) for client in clients) + "\n]\n"
