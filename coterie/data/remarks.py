"""What is worth a sentence about data that can be used: it stops nothing."""

from __future__ import annotations

from collections.abc import Sequence

import torch

from coterie.core.examples import Clients, Examples
from coterie.data.source import Source


def remarks(source: Source, clients: Clients) -> list[str]:
    """A sentence for each thing that the user should know of who holds what.

    Args:
        source: where the clients come from.
        clients: what `deal` made of it; those made on demand are not looked at.
    """
    if not isinstance(clients, dict):
        return []
    held = set().union(*map(_classes, clients.values()))
    return [*_lonely(clients), *_alike(source, held), *_unseen(source, held)]


def _lonely(clients: Clients) -> list[str]:
    """Clients of a single example."""
    found = [client for client, examples in clients.items() if len(examples) == 1]
    if not found:
        return []
    who = f"client {found[0]} holds" if len(found) == 1 else f"{len(found)} clients, such as {found[0]}, hold"
    return [f"{who} a single example, so whatever is sent from there is about that one"]


def _alike(source: Source, held: set[int]) -> list[str]:
    """All that clients hold is of one class."""
    if len(held) != 1:
        return []
    return [f"every client's examples are all of class {_list(source, [*held])}, so there is nothing to tell apart"]


def _unseen(source: Source, held: set[int]) -> list[str]:
    """Classes that occur among test examples and with no client."""
    tested = set() if source.test is None else _classes(source.test)
    missing = sorted(tested - held)
    if not missing:
        return []
    which = "class" if len(missing) == 1 else "classes"
    return [f"{which} {_list(source, missing)}: in test examples only, so no client can learn it"]


def _classes(examples: Examples) -> set[int]:
    y = examples.labels()
    if y is None or y.dim() != 1 or y.is_floating_point():
        return set()
    return set(torch.unique(y).tolist())


def _list(source: Source, classes: Sequence[int]) -> str:
    names = source.label_names or {c: str(c) for c in classes}
    few = ", ".join(names[c] for c in classes[:5])
    return f"{few} and {len(classes) - 5} more" if len(classes) > 5 else few
