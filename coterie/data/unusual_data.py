"""Remarks on data that can be used, but that the user should know something about."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import accumulate

import torch

from coterie.core.errors import few
from coterie.core.examples import Clients, Examples
from coterie.core.toml_text import toml_text
from coterie.data.source import Source

_MAX_NAMES = 5


def remarks_on_data(source: Source, clients: Clients) -> list[str]:
    """Return a sentence for each unusual thing about the clients' examples.

    Args:
        source: where the clients come from.
        clients: what `deal` made of it. Nothing is said about clients that are made on demand.
    """
    if not isinstance(clients, dict):
        return list(source.notes)
    trained = set().union(*map(_classes, clients.values()))
    return [
        *source.notes,
        *_remark_on_single_examples(clients),
        *_remark_on_one_class(source, trained),
        *_remark_on_test_only(source, trained),
        *_remark_on_like_names(source),
        *_remark_on_empty_columns(source),
    ]


def _remark_on_single_examples(clients: Clients) -> list[str]:
    """Return a remark, if some clients hold one example only."""
    found = [client for client, examples in clients.items() if len(examples) == 1]
    if not found:
        return []
    who = f"client {found[0]} holds" if len(found) == 1 else f"{len(found)} clients, such as {found[0]}, hold"
    return [f"{who} a single example, so every update from there is about that example"]


def _remark_on_one_class(source: Source, trained: set[int]) -> list[str]:
    """Return a remark, if `trained`, the classes that clients hold, is a single one."""
    if len(trained) != 1:
        return []
    name = _list_classes(source, [*trained])
    return [f"all examples of all clients have the class {name}, so there is nothing to tell apart"]


def _remark_on_test_only(source: Source, trained: set[int]) -> list[str]:
    """Return a remark, if test examples have classes outside `trained`, those that clients hold."""
    tested = set() if source.test is None else _classes(source.test)
    missing = sorted(tested - trained)
    if not missing:
        return []
    which = "class" if len(missing) == 1 else "classes"
    return [f"{which} {_list_classes(source, missing)}: in test examples only, so no client can learn it"]


def _remark_on_like_names(source: Source) -> list[str]:
    """Return a remark, if two classes have names that differ in case or in space around them alone."""
    by_likeness: dict[str, list[str]] = {}
    for name in source.label_names or ():
        by_likeness.setdefault(name.strip().casefold(), []).append(name)
    like = [toml_text(name) for names in by_likeness.values() if len(names) > 1 for name in names]
    return [f"{few(like)} are different classes, but differ in case or space alone"] if like else []


def _remark_on_empty_columns(source: Source) -> list[str]:
    """Return a remark, if a column of a table holds no value in any training row."""
    x, _ = source.train.tensors()
    ends = accumulate(len(column.feature_names) for column in source.columns)  # each column's last feature tells gaps
    empty = [c.name for end, c in zip(ends, source.columns, strict=True) if c.missing and bool(x[:, end - 1].all())]
    what = f"column{'s' if len(empty) > 1 else ''} {few([toml_text(name) for name in empty])}"
    return [f"{what}: no value in any training row, so there is nothing to learn from"] if empty else []


def _classes(examples: Examples) -> set[int]:
    y = examples.labels()
    if y is None or y.dim() != 1 or y.is_floating_point():
        return set()
    return set(torch.unique(y).tolist())


def _list_classes(source: Source, classes: Sequence[int]) -> str:
    names = source.label_names or {c: str(c) for c in classes}
    return few([names[c] for c in classes], _MAX_NAMES)
