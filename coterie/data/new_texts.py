"""Texts that no client held, read from a file of the user's for a trained model of text."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from coterie.core.errors import Mistake, reason
from coterie.core.toml_text import toml_text
from coterie.data.new_examples import NewExamples
from coterie.data.sources.csv import read_csv
from coterie.data.sources.parquet import read_parquet
from coterie.data.text_columns import TextColumn
from coterie.data.text_tokens import require_text


def read_new_texts(path: Path, text: TextColumn, label_column: str | None = None) -> NewExamples:
    """Read texts to classify as tokens, int64 [N, T]; the file is as `read_texts` takes it.

    Raises:
        Mistake: it cannot be read, or holds no texts.
    """
    texts, labels = read_texts(path, text.column, label_column)
    x, cut = text.inputs(texts)
    return NewExamples(x, [str(row + 1) for row in range(len(texts))], labels, note_cut(cut, len(texts), text))


def note_cut(cut: int, number: int, text: TextColumn) -> list[str]:
    """Return a sentence about texts that were cut, if any were."""
    sentence = f"{cut:,} of {number:,} texts are longer than the {text.max_length} tokens that the model reads of each"
    return [sentence] if cut else []


def read_texts(path: Path, column: str, label_column: str | None = None) -> tuple[list[str], list[str | None]]:
    """Read texts, and what the file says about the class of each.

    Args:
        path: a .txt file, whose lines are texts, those without text left out; or a .csv, .tsv, .parquet or .jsonl file.
        column: which holds the texts, in a file of columns.
        label_column: which holds the classes, where there is one.

    Raises:
        Mistake: it cannot be read, or holds no texts.
    """
    suffix = path.suffix.lower()
    if suffix == ".txt":
        texts = [line for line in _read(path).splitlines() if line.strip()]
        if not texts:
            raise Mistake(f"{path}: holds no line of text")
        return texts, [None] * len(texts)
    if suffix in (".csv", ".tsv"):
        columns: Any = read_csv(path)
    elif suffix == ".parquet":
        columns = read_parquet(path).columns
    elif suffix == ".jsonl":
        columns = _read_lines_of_json(path)
    else:
        raise Mistake(f"{path}: must be a .txt file, whose lines are texts, or a .csv, .tsv, .parquet or .jsonl file")
    if column not in columns:
        held = ", ".join(map(toml_text, columns)) or "none"
        raise Mistake(f"{path}: lacks the column {toml_text(column)}, which the model learned from; it has {held}")
    texts = [require_text(f"{path}: {column}", cell, row) for row, cell in enumerate(columns[column])]
    if not texts:
        raise Mistake(f"{path}: holds no rows; each row is a text")
    answers: Sequence[Any] = columns.get(label_column or "", [None] * len(texts))
    return texts, [None if cell is None else str(cell).strip() for cell in answers]


def _read(path: Path) -> str:
    try:
        return path.read_text(encoding="utf-8-sig")
    except (OSError, UnicodeDecodeError) as error:
        raise Mistake(f"{path}: cannot be read as text in UTF-8 ({reason(error)})") from error


def _read_lines_of_json(path: Path) -> dict[str, list[Any]]:
    """Return the columns of a file with one JSON object a line; what one of them lacks is None."""
    try:
        rows = [json.loads(line) for line in _read(path).splitlines() if line.strip()]
    except (ValueError, RecursionError) as error:
        raise Mistake(f"{path}: cannot be read as one JSON object a line ({reason(error)})") from error
    if not all(isinstance(row, dict) for row in rows):
        raise Mistake(f'{path}: holds a line that is not a JSON object, such as {{"text": "..."}}')
    return {name: [row.get(name) for row in rows] for name in dict.fromkeys(name for row in rows for name in row)}
