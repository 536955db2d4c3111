"""A source from the columns of a user's own table, of any file format.

Legend: N rows.
"""

from __future__ import annotations

import ast
import datetime
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from decimal import Decimal
from typing import Literal

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from coterie.core.errors import Mistake
from coterie.core.examples import Examples
from coterie.core.toml_text import toml_text
from coterie.data.feature_encoding import (
    CodedColumn,
    MeasuredColumn,
    encode_columns,
    is_missing,
    parse_measured_column,
    parse_number,
    require_distinct,
)
from coterie.data.source import Source
from coterie.data.train_test_split import split_rows, strata_by_client

_MAX_CLASSES = 1000
_MAX_CATEGORIES = 100
_MAX_EXACT_CODE = 2.0**53  # beyond it neighbouring whole numbers are one float64, and two codes would be one class
_NAMELESS = re.compile(r"|Unnamed: \d+|__index_level_\d+__")
_NUMBERS_IN_BRACKETS = re.compile(r"\s*\[[\s\d.,+\-e]*\]\s*")
_GROUPED_DIGITS = re.compile(r"[+-]?\d{1,3}(?:[ ,.'\u2019\u00a0\u202f]\d{3})+(?:[.,]\d+)?")
_WIDEST_CELL = 60
SCALARS = (str, bool, int, float, Decimal)
"""The types of one text, number or truth value."""

_LABEL_ALLOWED = "a label is one text, whole number or truth value"
_ID_KINDS = (*SCALARS, datetime.date)
_KINDS_IN_WORDS = {
    list: "a list",
    dict: "a group of fields",
    bytes: "bytes",
    datetime.date: "a date",
    datetime.datetime: "a time",
    datetime.time: "a time of day",
    datetime.timedelta: "a duration",
}
_TEST_MARKS = {
    **dict.fromkeys(("1", "true", "yes", "test"), True),
    **dict.fromkeys(("0", "false", "no", "train"), False),
}


@dataclass(frozen=True)
class RawTable:
    """The columns of a file, as it holds them.

    Attributes:
        path: what messages call the file.
        columns: the cells [N] of each column by name; each cell is a text, a number, a truth value or None.
        categories: the codes of the columns that the file declares to be coded.
        classes: the codes of those columns whose codes are numbered classes. As labels they keep their order, and the
            classes that occur in no row.
        typed: whether the file distinguishes text from numbers. If not, text that reads as a number is a number, and
            other text is a code.
    """

    path: str
    columns: Mapping[str, Sequence[object]]
    categories: Mapping[str, Sequence[str]] = field(default_factory=dict)
    classes: Mapping[str, Sequence[str]] = field(default_factory=dict)
    typed: bool = False


@dataclass(frozen=True)
class Labels:
    """The labels of all rows.

    Attributes:
        y: int64 [N], or [N, ...] with a label for each position of an input; float32 [N] or [N, L] of numbers to
            predict; None if there are none.
        num_classes: how many classes there are.
        names: of the classes, if they have any.
        kind: what the cells hold: classes that the file declares, whole numbers, or texts.
    """

    y: NDArray[np.int64] | NDArray[np.float32] | None
    num_classes: int | None
    names: Sequence[str] | None = None
    kind: Literal["declared", "numbers", "texts"] = "declared"


def source_from_table(
    name: str,
    table: RawTable,
    label_column: str,
    feature_columns: Sequence[str] | None,
    client_column: str | None,
    test_column: str | None,
    test_fraction: float,
    x: Tensor | None = None,
    labels: bool | Labels = True,
    label_columns: Sequence[str] | None = None,
) -> Source:
    """Return the source called `name` whose examples are the rows of `table`.

    The other arguments are those of the source csv.

    Args:
        x: what is learned from [N, ...], if it does not come from feature columns.
        labels: whether there are any; or the labels themselves, if they do not come from the label column's cells.
        label_columns: the columns that the labels come from, if these are several.

    Raises:
        Mistake: a column is missing, or a value cannot be used.
    """
    answers = (read_labels(table, label_column) if labels is True else labels) or Labels(None, None)
    y, num_classes, label_names = answers.y, answers.num_classes, answers.names
    ids = (
        None
        if client_column is None
        else read_client_ids(table.path, client_column, read_complete_column(table, "client_column", client_column))
    )
    uses: dict[str | None, str] = {label_column: "label_column"} if label_columns is None else {}
    uses |= dict.fromkeys(label_columns or (), "label_columns")
    uses |= {client_column: "client_column", test_column: "test_column"}
    features = [] if x is not None else choose_features(table, feature_columns, uses)
    if test_column is not None:
        train, test = read_split(table, test_column)
    elif y is not None:
        strata = y.astype(np.int64) if y.ndim == 1 and y.dtype.kind != "f" else np.zeros(len(y), dtype=np.int64)
        train, test = split_rows(strata_by_client(strata, ids, test_fraction), test_fraction)
    else:  # there is nothing to test
        train = np.arange(len(_read_column(table, "feature_columns", features[0]) if x is None else x))
        test = train[:0]
    encoded = encode_columns([read_feature(table, column, train) for column in features], train) if x is None else None
    everything = Examples(x if encoded is None else encoded.x, None if y is None else torch.from_numpy(y))  # type: ignore[arg-type]
    return Source(
        name,
        everything.take(torch.from_numpy(train)),
        everything.take(torch.from_numpy(test)) if len(test) else None,
        num_classes,
        groups=None if ids is None else [ids[i] for i in train],
        test_groups=None if ids is None or not len(test) else [ids[i] for i in test],
        label_names=label_names,
        columns=encoded.columns if encoded else (),
    )


def _read_column(table: RawTable, key: str, column: str) -> Sequence[object]:
    """Return the cells of a column, the value of the argument `key`; refuse it if it is missing or empty."""
    if column not in table.columns:
        held = ", ".join(map(toml_text, table.columns)) or "none"
        raise Mistake(f"{table.path} has no such column; its columns are {held}", key=key, value=column)
    cells = table.columns[column]
    if len(cells) == 0:
        raise Mistake(f"{table.path}: holds no rows; one example for each row is needed")
    return cells


def read_complete_column(table: RawTable, key: str, column: str) -> Sequence[object]:
    """Return the cells of a column, the value of the argument `key`, and refuse it if a value is missing.

    Raises:
        Mistake: the column or a value is missing.
    """
    cells = _read_column(table, key, column)
    return require_complete(table.path, key, column, cells, column in table.classes)


def require_complete(
    where: str, key: str, column: str, cells: Sequence[object], declared: bool = False
) -> Sequence[object]:
    """Return the cells of a column, and refuse it if a value is missing.

    Args:
        where: the file, for the message.
        key: the argument that names the column.
        column: the column's name.
        cells: N values.
        declared: whether the cells are classes that the file declares; "none" may be a class's name.

    Raises:
        Mistake: a value is missing.
    """
    for row, cell in enumerate(cells):
        if cell is None if declared else is_missing(cell):
            found = f"= {toml_text(cell)} counts as" if isinstance(cell, str) and cell.strip() else "is"
            raise Mistake(f"{where}: row {row + 1}: {column} {found} missing, but `{key}` needs a value in every row")
    return cells


def read_labels(table: RawTable, column: str) -> Labels:
    """Return the class of each row, as a number.

    The classes are those that the file declares, or else the distinct values in order.

    Raises:
        Mistake: a label is missing or cannot be used, or there are too many classes.
    """
    if column in table.classes:
        names = list(table.classes[column])
        number = {name: k for k, name in enumerate(names)}
        classes = [number[str(cell)] for cell in read_complete_column(table, "label_column", column)]
        return Labels(np.array(classes), len(names), names)
    cells = read_complete_column(table, "label_column", column)
    require_scalars(table.path, column, cells, SCALARS, _LABEL_ALLOWED)
    numbers = [parse_number(cell) for cell in cells]
    distinct: list[object]
    if all(number is not None and not _MAX_EXACT_CODE <= abs(number) < np.inf for number in numbers):
        values = np.array(numbers, dtype=np.float64)
        odd = np.flatnonzero(~np.isfinite(values) | (values != np.rint(values)))
        if len(odd):
            raise Mistake(
                f"{table.path}: row {odd[0] + 1}: the label {column} = {cells[odd[0]]}; a class is a whole number"
            )
        found, labels = np.unique(values, return_inverse=True)
        distinct = [int(v) for v in found]
    else:
        texts, labels = np.unique(np.array([str(c).strip() for c in cells]), return_inverse=True)
        distinct = texts.tolist()
    if len(distinct) > _MAX_CLASSES:
        raise Mistake(
            f"it holds {len(distinct)} different values in {table.path}; at most {_MAX_CLASSES} classes are possible",
            key="label_column",
            value=column,
        )
    kind: Literal["numbers", "texts"] = "numbers" if isinstance(distinct[0], int) else "texts"
    return Labels(labels.astype(np.int64), len(distinct), [str(v) for v in distinct], kind)


def require_scalars(where: str, column: str, cells: Sequence[object], kinds: tuple[type, ...], allowed: str) -> None:
    """Refuse a column unless each cell is one value: no list, also not written as text, no bytes, no group of fields.

    Args:
        where: the file, for the message.
        column: the column's name.
        cells: N values, or None where one is missing.
        kinds: the types that a value may have.
        allowed: what a value may be, in words.

    Raises:
        Mistake: a cell is something else; it says which.
    """
    for row, cell in enumerate(cells, 1):
        written = isinstance(cell, str) and cell.lstrip()[:1] in ("[", "{") and _is_list(cell)
        if written or not (cell is None or isinstance(cell, kinds)):
            kind = (
                "a list" if written else _KINDS_IN_WORDS.get(type(cell), f"a value of the kind {type(cell).__name__}")
            )
            raise Mistake(f"{where}: row {row}: {column} holds {kind}, {_shorten(cell)}; {allowed}")


def _is_list(text: str) -> bool:
    """Return whether a text is a list as Python, JSON or NumPy write it.

    >>> [_is_list(text) for text in ("[0, 1]", "['a', 'b']", '{"a": 1}', "[0 1]", "[unknown]")]
    [True, True, True, True, False]
    """
    if _NUMBERS_IN_BRACKETS.fullmatch(text):
        return True
    try:
        return isinstance(ast.literal_eval(text.strip()), list | dict | set)
    except (ValueError, SyntaxError, RecursionError, MemoryError):
        return False


def _shorten(cell: object) -> str:
    text = str(cell)
    return text if len(text) <= _WIDEST_CELL else f"{text[:_WIDEST_CELL]}..."


def read_client_ids(where: str, column: str, cells: Sequence[object]) -> list[str]:
    """Return the client id in each cell; none may be missing.

    Args:
        where: the file, for the message.
        column: the column's name.
        cells: N values.

    Raises:
        Mistake: a cell is not one text, number, truth value or date.
    """
    require_scalars(where, column, cells, _ID_KINDS, "a client id is one text, number or date")
    return [str(cell).strip() for cell in cells]


def read_split(table: RawTable, column: str) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Return rows to train on and rows to test on, by the true and false of a column.

    Raises:
        Mistake: it holds other values, or leaves nothing to train on or to test on.
    """
    marks = []
    for row, cell in enumerate(read_complete_column(table, "test_column", column)):
        number = parse_number(cell)
        mark = _TEST_MARKS.get(f"{number:g}" if number is not None else str(cell).strip().lower())
        if mark is None:
            raise Mistake(
                f"{table.path}: row {row + 1}: {column} = {toml_text(cell)}; `test_column` must hold true or false"
            )
        marks.append(mark)
    is_test = np.array(marks)
    if is_test.all() or not is_test.any():
        raise Mistake(
            f"it marks {is_test.sum()} of {len(is_test)} rows of {table.path}; "
            "some must be left to train on and some to test on",
            key="test_column",
            value=column,
        )
    return np.flatnonzero(~is_test), np.flatnonzero(is_test)


def choose_features(table: RawTable, named: Sequence[str] | None, uses: Mapping[str | None, str]) -> list[str]:
    """Return the feature columns: those that are named, or else all that have no other use.

    Args:
        uses: the other uses of columns: the column -> the argument that names it.

    Raises:
        Mistake: there is none, or one cannot be learned from.
    """
    if isinstance(named, str):
        allowed = f"a list of columns, such as {toml_text([named])}"
        raise Mistake(key="feature_columns", value=named, allowed=allowed)
    features = [column for column in table.columns if column not in uses] if named is None else list(named)
    if not features:
        raise Mistake(f"{table.path} has no column left to learn from; name some", key="feature_columns")
    before: set[str] = set()
    for column in features:
        if column in before:
            raise Mistake(f"it names {toml_text(column)} twice; name each column once", key="feature_columns")
        before.add(column)
        if uses.get(column) in ("label_column", "label_columns", "test_column"):  # the answer itself
            raise Mistake(
                f"it names {toml_text(column)}, which is `{uses[column]}`; leave it out", key="feature_columns"
            )
    nameless = [] if named is not None else [column for column in features if _NAMELESS.fullmatch(column)]
    if nameless:  # often a row's number, which somebody's export put first
        place = f"column {list(table.columns).index(nameless[0]) + 1}"
        called = f" but {toml_text(nameless[0])}, which pandas makes up" if nameless[0] else ""
        raise Mistake(
            f"{table.path}: {place} has no name{called}; give it one, or say in `feature_columns` what to learn from"
        )
    return features


def read_feature(
    table: RawTable, column: str, train: NDArray[np.int64], coded: bool = False
) -> MeasuredColumn | CodedColumn:
    """Return a column as measured numbers, or coded with the texts of the rows `train`.

    Args:
        table: the table.
        column: the column's name.
        train: the training rows.
        coded: whether the column is coded, also where its texts are numbers.

    Raises:
        Mistake: it holds unsuitable values.
    """
    cells = _read_column(table, "feature_columns", column)
    if column in table.categories:
        return CodedColumn(column, [None if c is None else str(c) for c in cells], table.categories[column])
    strange = next((c for c in cells if table.typed and not isinstance(c, bool | int | float | None)), None)
    if strange is not None and not coded:
        kind = "strings" if isinstance(strange, str) else f"values of the kind {type(strange).__name__}"
        raise Mistake(
            f"{table.path}: {column} holds {kind}; store numbers or a dictionary (categorical) column, or leave it "
            "out of `feature_columns`"
        )
    numbers = None if coded else parse_measured_column(table.path, column, cells)
    if numbers is not None:
        return require_distinct(table.path, numbers)
    texts = [None if is_missing(c) else str(c).strip() for c in cells]
    if not coded:
        _require_plain_numbers(table, column, [t for t in texts if t is not None])
    require_scalars(table.path, column, texts, (str,), "a feature is one number or one text; give a column for each")
    categories = sorted({t for i in train if (t := texts[i]) is not None})
    require_few_categories(table.path, column, categories, len(cells), len(train))
    return CodedColumn(column, texts, categories)


def require_few_categories(where: str, column: str, categories: Sequence[str], rows: int, train: int) -> None:
    """Refuse a coded column with so many categories that they are rather names or free text.

    Args:
        where: the file, for the message.
        column: the column's name.
        categories: those of the training rows.
        rows: how many rows there are. train: how many of them are for training.

    Raises:
        Mistake: there are too many.
    """
    if len(categories) > max(2, min(_MAX_CATEGORIES, rows // 2)):
        raise Mistake(
            f"{where}: {column} holds {len(categories)} different texts in {train} training rows, such as "
            f"{toml_text(categories[0])}, too many for a coded column; leave it out of `feature_columns`, or give "
            "numbers"
        )


def _require_plain_numbers(table: RawTable, column: str, texts: Sequence[str]) -> None:
    """Refuse a column of texts that are numbers as a spreadsheet writes them: 1,5 or 1 000 or 1.000,50."""
    plain = [parse_number(text.replace(",", ".", 1)) is not None for text in texts]
    if all(plain) or all(p or _GROUPED_DIGITS.fullmatch(text) for p, text in zip(plain, texts, strict=True)):
        shown = texts[0] if all(plain) else texts[plain.index(False)]
        raise Mistake(
            f"{table.path}: {column} holds numbers such as {toml_text(shown)}; write them with a decimal point, and "
            "without separators of thousands"
        )
