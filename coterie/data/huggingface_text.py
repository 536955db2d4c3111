"""Sources of text from data sets of the package `datasets`: to be classified, or predicted from what comes before.

Legend: N texts, T tokens.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from math import ceil
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from coterie.core.errors import Mistake
from coterie.core.examples import Examples
from coterie.data.dataset_columns import DatasetColumns
from coterie.data.raw_table import read_client_ids, require_complete
from coterie.data.source import Source
from coterie.data.text_columns import MAX_LENGTH, TextColumn
from coterie.data.text_tokens import NUM_TOKENS, next_character_examples, require_text
from coterie.data.tokenizer import read_tokenizer
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


def choose_text_column(
    column: str | None, tokenizer: str | Path | None, max_length: int | None, packed: bool | None, next_token: bool
) -> TextColumn | None:
    """Return how a column's texts become tokens of a tokenizer; None where there is no tokenizer.

    Args:
        column: the column of text, if there is one. The others are arguments of `coterie.data.huggingface.source`.
        tokenizer, max_length, packed: what the user gave.
        next_token: whether there is no label to predict.

    Raises:
        Mistake: an argument is given that means nothing here, or the tokenizer cannot be used.
    """
    for key, value in {"max_length": max_length, "packed": packed}.items():
        if value is not None and tokenizer is None:
            raise Mistake("it belongs to a `tokenizer`; give one, or leave it out", key=key, value=value)
    if tokenizer is None:
        return None
    if column is None:
        raise Mistake("it is for a column of text; name one in `text_column`", key="tokenizer", value=tokenizer)
    if packed is not None and not next_token:
        sentence = "texts with labels are one example each; leave it out, or leave labels out (`labels` = false)"
        raise Mistake(sentence, key="packed", value=packed)
    length = MAX_LENGTH if max_length is None else max_length
    if length < 1:
        raise Mistake(key="max_length", value=length, allowed="1 or more")
    return TextColumn(column, read_tokenizer(tokenizer), length, next_token)


def read_text_column(columns: DatasetColumns, text: TextColumn) -> tuple[Tensor, list[str]]:
    """Return a column of texts to classify as tokens [N, T], and what the user should know about it.

    Raises:
        Mistake: there is no such column, or a row holds no text.
    """
    columns.require("text_column", text.column)
    name = f"{columns.where}: {text.column}"
    x, cut = text.inputs([require_text(name, cell, row) for row, cell in enumerate(columns.cells(text.column))])
    return x, _note_cut(cut, len(x), text.max_length)


def source_of_tokens(
    columns: DatasetColumns, text: TextColumn, client_column: str | None, test_fraction: float, packed: bool
) -> Source:
    """Return a source of next-token examples. A row is a document; without a test split each client's last are tested.

    Raises:
        Mistake: a column is missing, a row holds no text, or nothing is left to train on or to test on.
    """
    columns.require("text_column", text.column)
    columns.require("client_column", client_column)
    name = f"{columns.where}: {text.column}"
    parts = [_read_documents(part, text.column, client_column, columns.where) for part in columns.parts]
    train, test = parts if len(parts) > 1 else _split_lines(parts[0], require_test_fraction(test_fraction))
    if not train or not test:
        raise Mistake(f"{name} holds too few texts; some are needed to learn from and some to test on")
    made, notes = _pack(text, [train, test]) if packed else _pad(text, [train, test])
    (examples, groups), (test_examples, test_groups) = made
    source = Source("huggingface", examples, test_examples, text.tokenizer.size, text=text, notes=notes)
    return source if client_column is None else replace(source, groups=groups, test_groups=test_groups)


def _pack(text: TextColumn, parts: Sequence[_Lines]) -> tuple[list[tuple[Examples, list[str]]], list[str]]:
    """Return the blocks of each client's documents, and the client of each block, for each part of the data."""
    made = []
    for documents in parts:
        blocks = {client: text.blocks(own) for client, own in documents.items()}
        x, y = (torch.cat([pair[k] for pair in blocks.values()]) for k in (0, 1))
        made.append((Examples(x, y), [client for client, (own, _) in blocks.items() for _ in own]))
    return made, []


def _pad(text: TextColumn, parts: Sequence[_Lines]) -> tuple[list[tuple[Examples, list[str]]], list[str]]:
    """Return an example for each document, and its client, for each part of the data; all have one length."""
    documents = [[document for own in part.values() for document in own] for part in parts]
    x, y, cut = text.documents([document for part in documents for document in part])
    groups = [[client for client, own in part.items() for _ in own] for part in parts]
    first = len(documents[0])
    split = zip((x[:first], x[first:]), (y[:first], y[first:]), groups, strict=True)
    return [(Examples(a, b), own) for a, b, own in split], _note_cut(cut, len(x), text.max_length)


def _note_cut(cut: int, number: int, max_length: int) -> list[str]:
    few = f"{cut:,} of {number:,} texts are longer than max_length = {max_length} tokens"
    return [f"{few}, and what is beyond is not read"] if cut else []


def _read_documents(part: Any, text_column: str, client_column: str | None, where: str) -> _Lines:
    """Return the texts of each client in one split, in order, without those that hold nothing but space."""
    by_client: _Lines = {}
    clients = _read_clients(part, client_column, where)
    for row, (client, cell) in enumerate(zip(clients, part[text_column], strict=True)):
        if require_text(f"{where}: {text_column}", cell, row).strip():
            by_client.setdefault(client, []).append(cell)
    return by_client


def _read_clients(part: Any, client_column: str | None, where: str) -> list[str]:
    """Return the client id of each row; "" where the data have no clients."""
    if client_column is None:
        return [""] * len(part)
    return read_client_ids(
        where, client_column, require_complete(where, "client_column", client_column, list(part[client_column]))
    )


def _read_lines(part: Any, text_column: str, client_column: str | None, where: str) -> _Lines:
    """Return the lines of each client in one split, in order, without empty lines."""
    by_client: _Lines = {}
    clients = _read_clients(part, client_column, where)
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
