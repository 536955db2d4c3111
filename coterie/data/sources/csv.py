"""The source csv: a file of comma-separated values of the user's own."""

from __future__ import annotations

import codecs
import csv as reader
import io
import re
from collections import Counter
from collections.abc import Iterator, Sequence
from pathlib import Path

from coterie.core.errors import Mistake
from coterie.core.toml_text import toml_text
from coterie.data.label_columns import read_task_labels
from coterie.data.raw_table import RawTable, source_from_table
from coterie.data.regular_file import require_file
from coterie.data.source import Source

_MAX_COLUMNS = 100_000
_UTF16_MARKS = (codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE)


def csv(
    path: str | Path,
    label_column: str = "label",
    feature_columns: Sequence[str] | None = None,
    client_column: str | None = None,
    test_column: str | None = None,
    test_fraction: float = 0.2,
    labels: bool = True,
    label_columns: Sequence[str] | None = None,
    task: str | None = None,
) -> Source:
    """Load a CSV file: each row is an example, and the first row names the columns.

    The separator is the most frequent of comma, semicolon, tab and bar in the first row, outside quotes. An empty cell,
    "?", "NA" and the like are missing values. A feature column of numbers, with decimal points, is measured; any other
    is coded (see `coterie.data.feature_encoding`), with the categories of the training rows. The classes are the
    distinct labels in order, including those that occur only in test rows.

    Args:
        path: the file.
        label_column: the class to predict.
        feature_columns: what to predict it from; by default every column without another use.
        client_column: each row's client id.
        test_column: whether a row is for testing: true or false, 1 or 0, test or train.
        test_fraction: what part becomes the test set if there is no `test_column`. The split is fixed, and stratified
            by class and client.
        labels: whether the rows have labels. If not, the label column is ignored, and without a `test_column` all rows
            are for training, by an algorithm that needs no labels.
        label_columns: several columns with labels, instead of `label_column`: 0 and 1, or numbers to predict.
        task: the kind of task; "regression" reads the label columns as numbers.

    Raises:
        Mistake: the file cannot be read, a column is missing, or a value cannot be used.
    """
    table = RawTable(str(path), read_csv(Path(path)))
    return source_from_table(
        "csv",
        table,
        label_column,
        feature_columns,
        client_column,
        test_column,
        test_fraction,
        labels=read_task_labels(table, label_column, label_columns, task) if labels else False,
        label_columns=label_columns,
    )


def read_csv(path: Path) -> dict[str, list[str]]:
    """Read a CSV file as text columns, by name.

    Raises:
        Mistake: the file cannot be read, or two rows differ in their number of cells.
    """
    text = _read_text(path)
    lines = io.StringIO(text, newline="")
    first = re.sub(r'"[^"]*"', "", lines.readline())  # without quoted text
    lines.seek(0)
    rows = reader.reader(lines, delimiter=max(",;\t|", key=first.count), skipinitialspace=True)
    try:
        return _collect_columns(path, rows)
    except reader.Error as error:
        raise Mistake(f"{path}: line {rows.line_num}: cannot be read as comma-separated text ({error})") from error


def _read_text(path: Path) -> str:
    """Return the text of a file in UTF-8, or in UTF-16 with a mark at its start, as spreadsheets write it."""
    require_file(path)
    try:
        content = path.read_bytes()
        encoding = "utf-16" if content.startswith(_UTF16_MARKS) else "utf-8-sig"
        text = content.decode(encoding)
    except OSError as error:
        raise Mistake(f"{path}: cannot be read ({error.strerror})") from error
    except UnicodeDecodeError as error:
        line, byte = content.count(b"\n", 0, error.start) + 1, content[error.start]
        raise Mistake(
            f"{path}: line {line} is not text in UTF-8 (byte {byte:#04x}); save it as CSV in UTF-8"
        ) from error
    if "\0" in text:
        raise Mistake(f"{path}: holds the character NUL, so it is not text in UTF-8; save it as CSV in UTF-8")
    return text


def _collect_columns(path: Path, rows: Iterator[list[str]]) -> dict[str, list[str]]:
    """Return the cells of each column by its name in the first row; refuse repeated names and uneven rows."""
    names = [name.strip() for name in next(rows, [])]
    twice = [name for name, times in Counter(names).items() if times > 1]
    if not names or twice:
        found = f"names {toml_text(twice[0])} twice" if twice else "is empty"
        raise Mistake(f"{path}: its first row {found}; it must name each column, once")
    if len(names) > _MAX_COLUMNS:
        raise Mistake(
            f"{path}: its first row names {len(names):,} columns; at most {_MAX_COLUMNS:,} are read, so store so many "
            "features as x of an npz archive"
        )
    whole = [row for row in rows if row]  # without blank lines
    for number, row in enumerate(whole, 1):
        if len(row) != len(names):
            raise Mistake(f"{path}: row {number} has {len(row)} cells, but the first row names {len(names)} columns")
    columns = map(list, zip(*whole, strict=True)) if whole else ([] for _ in names)
    return dict(zip(names, columns, strict=True))
