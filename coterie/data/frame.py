"""A source from the columns of a user's own table, whatever file it came in.

Legend: N rows.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from coterie.core.errors import Mistake
from coterie.core.examples import Examples
from coterie.core.toml_text import toml_text
from coterie.data.source import Source
from coterie.data.split import by_client, fixed_split
from coterie.data.table import Coded, Measured, apart, as_number, encode, is_missing, measured

_MOST_CLASSES = 1000
_MOST_CATEGORIES = 100
_EXACT = 2.0**53  # beyond it neighbouring whole numbers are one float64, and two codes would be one class
_NAMELESS = re.compile(r"|Unnamed: \d+|__index_level_\d+__")
_TEST = {"1": True, "true": True, "yes": True, "test": True, "0": False, "false": False, "no": False, "train": False}


@dataclass(frozen=True)
class Frame:
    """The columns [N] of a file, each cell a text, a number, a truth value or None.

    `categories` names the columns that the file itself declares to be coded, with their codes; `classes` those whose
    codes are numbered classes, so that as labels they keep their order and those that no row holds. `typed` says that
    the file knows what is text and what is a number; where it does not, text that reads as a number is one, and other
    text is a code.
    """

    path: str
    columns: Mapping[str, Sequence[object]]
    categories: Mapping[str, Sequence[str]] = field(default_factory=dict)
    classes: Mapping[str, Sequence[str]] = field(default_factory=dict)
    typed: bool = False


def from_frame(
    name: str,
    frame: Frame,
    label_column: str,
    feature_columns: Sequence[str] | None,
    client_column: str | None,
    test_column: str | None,
    test_fraction: float,
    x: Tensor | None = None,
    labels: bool = True,
) -> Source:
    """The source called `name` whose examples are the rows of `frame`; the arguments are those of `csv`.

    Args:
        x: what is learned from [N, ...], where it does not come from feature columns.

    Raises:
        Mistake: a column is missing, or a value cannot be used.
    """
    y, label_names = _labels(frame, label_column) if labels else (None, None)
    ids = None if client_column is None else _ids(frame, client_column)
    taken = {label_column: "label_column", client_column: "client_column", test_column: "test_column"}
    features = [] if x is not None else _feature_names(frame, feature_columns, taken)
    if test_column is not None:
        train, test = _marked(frame, test_column)
    elif y is not None:
        train, test = fixed_split(by_client(y, ids, test_fraction), test_fraction)
    else:  # there is nothing to test
        train = np.arange(len(_column(frame, "feature_columns", features[0]) if x is None else x))
        test = train[:0]
    table = encode([_feature(frame, column, train) for column in features], train) if x is None else None
    everything = Examples(x if table is None else table.x, None if y is None else torch.from_numpy(y))  # type: ignore[arg-type]
    return Source(
        name,
        everything.take(torch.from_numpy(train)),
        everything.take(torch.from_numpy(test)) if len(test) else None,
        None if label_names is None else len(label_names),
        groups=None if ids is None else [ids[i] for i in train],
        test_groups=None if ids is None or not len(test) else [ids[i] for i in test],
        label_names=label_names,
        columns=table.columns if table else (),
    )


def _column(frame: Frame, key: str, column: str) -> Sequence[object]:
    if column not in frame.columns:
        held = ", ".join(map(toml_text, frame.columns)) or "none"
        raise Mistake(f"{frame.path} has no such column; its columns are {held}", key=key, value=column)
    cells = frame.columns[column]
    if len(cells) == 0:
        raise Mistake(f"{frame.path}: holds no rows; one example for each row is needed")
    return cells


def _complete(frame: Frame, key: str, column: str) -> Sequence[object]:
    """The cells of a column that must have a value in every row."""
    cells, declared = _column(frame, key, column), column in frame.classes  # "none" may be a class's name
    for row, cell in enumerate(cells):
        if cell is None if declared else is_missing(cell):
            found = f"= {toml_text(cell)} counts as" if isinstance(cell, str) and cell.strip() else "is"
            raise Mistake(
                f"{frame.path}: row {row + 1}: {column} {found} missing, but `{key}` needs a value in every row"
            )
    return cells


def _labels(frame: Frame, column: str) -> tuple[NDArray[np.int64], list[str]]:
    """The class number of each row [N], and each class's name: those declared, or the distinct values in order."""
    if column in frame.classes:
        names = list(frame.classes[column])
        number = {name: k for k, name in enumerate(names)}
        return np.array([number[str(cell)] for cell in _complete(frame, "label_column", column)]), names
    cells = _complete(frame, "label_column", column)
    numbers = [as_number(cell) for cell in cells]
    distinct: list[object]
    if all(number is not None and not _EXACT <= abs(number) < np.inf for number in numbers):
        values = np.array(numbers, dtype=np.float64)
        odd = np.flatnonzero(~np.isfinite(values) | (values != np.rint(values)))
        if len(odd):
            raise Mistake(
                f"{frame.path}: row {odd[0] + 1}: the label {column} = {cells[odd[0]]}; a class is a whole number"
            )
        found, labels = np.unique(values, return_inverse=True)
        distinct = [int(v) for v in found]
    else:
        texts, labels = np.unique(np.array([str(c).strip() for c in cells]), return_inverse=True)
        distinct = texts.tolist()
    if len(distinct) > _MOST_CLASSES:
        raise Mistake(
            f"it holds {len(distinct)} different values in {frame.path}; at most {_MOST_CLASSES} classes are possible",
            key="label_column",
            value=column,
        )
    return labels.astype(np.int64), [str(v) for v in distinct]


def _ids(frame: Frame, column: str) -> list[str]:
    return [str(cell).strip() for cell in _complete(frame, "client_column", column)]


def _marked(frame: Frame, column: str) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Rows to train on and rows to test on."""
    marks = []
    for row, cell in enumerate(_complete(frame, "test_column", column)):
        number = as_number(cell)
        mark = _TEST.get(f"{number:g}" if number is not None else str(cell).strip().lower())
        if mark is None:
            raise Mistake(
                f"{frame.path}: row {row + 1}: {column} = {toml_text(cell)}; `test_column` must hold true or false"
            )
        marks.append(mark)
    is_test = np.array(marks)
    if is_test.all() or not is_test.any():
        raise Mistake(
            f"it marks {is_test.sum()} of {len(is_test)} rows of {frame.path}; "
            "some must be left to train on and some to test on",
            key="test_column",
            value=column,
        )
    return np.flatnonzero(~is_test), np.flatnonzero(is_test)


def _feature_names(frame: Frame, named: Sequence[str] | None, taken: Mapping[str | None, str]) -> list[str]:
    """The feature columns: those named, else all that are not taken for something else, by the key that takes them."""
    if isinstance(named, str):
        allowed = f"a list of columns, such as {toml_text([named])}"
        raise Mistake(key="feature_columns", value=named, allowed=allowed)
    features = [column for column in frame.columns if column not in taken] if named is None else list(named)
    if not features:
        raise Mistake(f"{frame.path} has no column left to learn from; name some", key="feature_columns")
    before: set[str] = set()
    for column in features:
        if column in before:
            raise Mistake(f"it names {toml_text(column)} twice; name each column once", key="feature_columns")
        before.add(column)
        if taken.get(column) in ("label_column", "test_column"):  # the answer itself
            raise Mistake(
                f"it names {toml_text(column)}, which is `{taken[column]}`; leave it out", key="feature_columns"
            )
    nameless = [] if named is not None else [column for column in features if _NAMELESS.fullmatch(column)]
    if nameless:  # often a row's number, which somebody's export put first
        place = f"column {list(frame.columns).index(nameless[0]) + 1}"
        called = f" but {toml_text(nameless[0])}, which pandas makes up" if nameless[0] else ""
        raise Mistake(
            f"{frame.path}: {place} has no name{called}; give it one, or say in `feature_columns` what to learn from"
        )
    return features


def _feature(frame: Frame, column: str, train: NDArray[np.int64]) -> Measured | Coded:
    cells = _column(frame, "feature_columns", column)
    if column in frame.categories:
        return Coded(column, [None if c is None else str(c) for c in cells], frame.categories[column])
    strange = next((c for c in cells if frame.typed and not isinstance(c, bool | int | float | None)), None)
    if strange is not None:
        kind = "strings" if isinstance(strange, str) else f"values of the kind {type(strange).__name__}"
        raise Mistake(
            f"{frame.path}: {column} holds {kind}; store numbers or a dictionary (categorical) column, or leave it "
            "out of `feature_columns`"
        )
    numbers = measured(frame.path, column, cells)
    if numbers is not None:
        return apart(frame.path, numbers)
    texts = [None if is_missing(c) else str(c).strip() for c in cells]
    known = [t for t in texts if t is not None]
    if all(as_number(t.replace(",", ".", 1)) is not None for t in known):
        raise Mistake(
            f"{frame.path}: {column} holds numbers such as {toml_text(known[0])}; write them with a decimal point"
        )
    categories = sorted({t for i in train if (t := texts[i]) is not None})
    if len(categories) > max(2, min(_MOST_CATEGORIES, len(cells) // 2)):
        raise Mistake(
            f"{frame.path}: {column} holds {len(categories)} different texts in {len(train)} training rows, such as "
            f"{toml_text(categories[0])}, too many for a coded column; leave it out of `feature_columns`, or give "
            "numbers"
        )
    return Coded(column, texts, categories)
