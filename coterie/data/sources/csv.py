"""A file of comma-separated values of the user's own."""

from __future__ import annotations

import csv as reader
import re
from collections import Counter
from collections.abc import Iterator, Sequence
from pathlib import Path

from coterie.core.errors import Mistake, reason
from coterie.data.frame import Frame, from_frame
from coterie.data.source import Source


def csv(
    path: str | Path,
    label_column: str = "label",
    feature_columns: Sequence[str] | None = None,
    client_column: str | None = None,
    test_column: str | None = None,
    test_fraction: float = 0.2,
    labels: bool = True,
) -> Source:
    """One example for each row of the file at `path`, whose first row names the columns.

    Commas, semicolons, tabs or bars separate (whichever the first row has most of outside quotes). An empty cell, "?",
    "NA" and the like are missing values. A feature column of numbers, with decimal points, is measured, any other is
    coded (see `coterie.data.table`), with the categories of the training rows. Classes are the distinct labels in
    order; one that occurs only in test rows counts.

    Args:
        path: the file.
        label_column: what to predict, a class.
        feature_columns: what to predict it from; by default every column that has no other use.
        client_column: each row's client id.
        test_column: whether a row is for testing: true or false, 1 or 0, test or train.
        test_fraction: what part becomes the test set where there is no `test_column`: fixed, stratified by class and
            client.
        labels: whether each row has one. Without, a label column is passed over, and where no `test_column` says
            otherwise all rows are there to learn from, for an algorithm that needs no labels.

    Raises:
        Mistake: the file cannot be read, a column is missing, or a value cannot be used.
    """
    frame = Frame(str(path), read(Path(path)))
    return from_frame(
        "csv", frame, label_column, feature_columns, client_column, test_column, test_fraction, labels=labels
    )


def read(path: Path) -> dict[str, list[str]]:
    """The columns of the file by name, all of text.

    Raises:
        Mistake: the file cannot be read, or a row has another number of cells than the first.
    """
    try:
        with path.open(newline="", encoding="utf-8-sig") as file:
            first = re.sub(r'"[^"]*"', "", file.readline())  # without what is quoted
            file.seek(0)
            rows = reader.reader(file, delimiter=max(",;\t|", key=first.count), skipinitialspace=True)
            return _columns(path, rows)
    except FileNotFoundError as error:
        raise Mistake("there is no such file", key="path", value=path) from error
    except (OSError, UnicodeDecodeError, reader.Error) as error:
        why = reason(error)
        raise Mistake(f"{path}: cannot be read as comma-separated text in UTF-8 ({why})") from error


def _columns(path: Path, rows: Iterator[list[str]]) -> dict[str, list[str]]:
    names = [name.strip() for name in next(rows, [])]
    twice = [name for name, times in Counter(names).items() if times > 1]
    if not names or twice:
        found = f"names {twice[0]!r} twice" if twice else "is empty"
        raise Mistake(f"{path}: its first row {found}; it must name each column, once")
    cells: list[list[str]] = [[] for _ in names]
    for row in rows:
        if not row:
            continue  # a blank line
        if len(row) != len(names):
            where = f"{path}: row {len(cells[0]) + 1}"
            raise Mistake(f"{where} has {len(row)} cells, but the first row names {len(names)} columns")
        for column, cell in zip(cells, row, strict=True):
            column.append(cell)
    return dict(zip(names, cells, strict=True))
