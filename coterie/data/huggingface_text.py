"""Sources of text to be predicted from what comes before it, from data sets of the package `datasets`."""

from __future__ import annotations

from math import ceil
from typing import Any

from coterie.core.errors import Mistake
from coterie.data.dataset_columns import DatasetColumns
from coterie.data.raw_table import read_client_ids, require_complete
from coterie.data.source import Source
from coterie.data.text_tokens import NUM_TOKENS, next_character_examples, require_text
from coterie.data.train_test_split import require_test_fraction

_Lines = dict[str, list[str]]
"""The lines of text of each client."""


def source_of_characters(
    columns: DatasetColumns, text_column: str, client_column: str | None, test_fraction: float
) -> Source:
    """Return a source of next-character examples, which are windows of each client's lines."""
    columns.require("text_column", text_column)
    columns.require("client_column", client_column)
    name = f"{columns.where}: {text_column}"
    train, *test_parts = [_read_lines(part, text_column, client_column, columns.where) for part in columns.parts]
    if test_parts:
        test = test_parts[0]
    else:
        train, test = _split_lines(train, require_test_fraction(test_fraction))
    if not train or not test:
        raise Mistake(f"{name} holds too few lines; some are needed to learn from and some to test on")
    examples, groups = next_character_examples(train)
    test_examples, test_groups = next_character_examples(test)
    if client_column is None:
        return Source("huggingface", examples, test_examples, NUM_TOKENS)
    return Source("huggingface", examples, test_examples, NUM_TOKENS, groups=groups, test_groups=test_groups)


def _read_lines(part: Any, text_column: str, client_column: str | None, where: str) -> _Lines:
    """Return the lines of each client in one split, in order, without empty lines."""
    by_client: _Lines = {}
    clients = [""] * len(part)
    if client_column:
        cells = list(part[client_column])
        clients = read_client_ids(where, client_column, require_complete(where, "client_column", client_column, cells))
    for row, (client, cell) in enumerate(zip(clients, part[text_column], strict=True)):
        lines = [line for line in require_text(f"{where}: {text_column}", cell, row).splitlines() if line.strip()]
        if lines:
            by_client.setdefault(client, []).extend(lines)
    return by_client


def _split_lines(lines: _Lines, test_fraction: float) -> tuple[_Lines, _Lines]:
    """Return the lines to train on, and those to test on: each client's last; a client's only line is for training."""
    counts = {client: min(ceil(test_fraction * len(own)), len(own) - 1) for client, own in lines.items()}
    train = {client: own[: len(own) - counts[client]] for client, own in lines.items()}
    return train, {client: own[-counts[client] :] for client, own in lines.items() if counts[client]}
