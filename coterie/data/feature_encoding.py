"""Encoding of a table's columns, measured and coded, as one matrix of features.

A measured column becomes one feature, NaN where it is missing; `coterie.data.standardize` scales it and fills the gaps.
A coded column becomes a 0 or 1 for each of its categories, all 0 for any other value. Both kinds get one more feature,
1 where the value is missing, if it is missing in any training row.

Legend: N rows, F features.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from decimal import Decimal
from itertools import accumulate
from typing import Any, NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from coterie.core.errors import Mistake
from coterie.core.toml_text import toml_text

_MISSING_TEXTS = frozenset({"", "?", "na", "n/a", "nan", "null", "none"})
"""Texts that stand for a missing value, in lower case."""

_MAX_EXACT_FLOAT32 = 2**24
_MIN_FLOAT32_STEPS = 128


@dataclass(frozen=True)
class MeasuredColumn:
    """A column of numbers [N], NaN where missing."""

    name: str
    values: NDArray[np.float64]


@dataclass(frozen=True)
class CodedColumn:
    """A column of categories [N], None where missing."""

    name: str
    values: Sequence[str | None]
    categories: Sequence[str]


@dataclass(frozen=True)
class ColumnEncoding:
    """How a column becomes features, which the training rows decide.

    Attributes:
        name: the column's.
        categories: of a coded column; None if it is measured.
        missing: whether a feature says where its value is missing.
    """

    name: str
    categories: tuple[str, ...] | None
    missing: bool

    @property
    def feature_names(self) -> list[str]:
        """A name for each of its features."""
        own = [self.name] if self.categories is None else [f"{self.name}={c}" for c in self.categories]
        return [*own, f"{self.name} missing"] if self.missing else own


class EncodedTable(NamedTuple):
    """Features of all rows, x float32 [N, F], and the encoding of each column."""

    x: Tensor
    columns: list[ColumnEncoding]


def list_feature_names(columns: Sequence[ColumnEncoding]) -> list[str]:
    """Return the name of each feature [F]."""
    return [name for column in columns for name in column.feature_names]


def list_measured_features(columns: Sequence[ColumnEncoding]) -> list[int]:
    """Return the positions, among all features, of those that are measured."""
    firsts = accumulate((len(column.feature_names) for column in columns), initial=0)
    return [first for first, column in zip(firsts, columns, strict=False) if column.categories is None]


def encode_columns(columns: Sequence[MeasuredColumn | CodedColumn], train: NDArray[np.int64]) -> EncodedTable:
    """Return the features of all rows, and the encoding of each column, which the rows `train` decide.

    Args:
        columns: the columns [N].
        train: the training rows; only they decide which features there are.
    """
    encodings = [
        ColumnEncoding(
            c.name, None if isinstance(c, MeasuredColumn) else tuple(c.categories), bool(find_gaps(c)[train].any())
        )
        for c in columns
    ]
    return EncodedTable(apply_encodings(columns, encodings), encodings)


def apply_encodings(columns: Sequence[MeasuredColumn | CodedColumn], encodings: Sequence[ColumnEncoding]) -> Tensor:
    """Return the features float32 [N, F] of any rows, also of those that did not decide the encodings.

    Args:
        columns: the columns [N].
        encodings: one for each column.
    """
    features: list[NDArray[np.float64]] = []
    for column, encoding in zip(columns, encodings, strict=True):
        if isinstance(column, MeasuredColumn):
            features.append(column.values)
        else:
            place = {category: k for k, category in enumerate(encoding.categories or ())}
            code = np.array([place.get(value, -1) for value in column.values])  # type: ignore[arg-type]
            features += [(code == place[category]).astype(np.float64) for category in encoding.categories or ()]
        if encoding.missing:
            features.append(find_gaps(column).astype(np.float64))
    return torch.from_numpy(np.stack(features, axis=1)).to(torch.float32)


def find_gaps(column: MeasuredColumn | CodedColumn) -> NDArray[np.bool_]:
    """Return where a value is missing [N]."""
    if isinstance(column, MeasuredColumn):
        return np.isnan(column.values)
    return np.array([v is None for v in column.values], dtype=bool)


def is_missing(cell: object) -> bool:
    """Return whether a cell, of text or of a typed table, holds no value."""
    if isinstance(cell, str):
        return cell.strip().lower() in _MISSING_TEXTS
    return cell is None or (isinstance(cell, float) and math.isnan(cell))


def parse_number(cell: object) -> float | None:
    """Return the number in a cell that is not missing, or None if it holds something else.

    >>> parse_number("1e3"), parse_number("1_000")  # the second is a code: only Python source writes numbers like this
    (1000.0, None)
    """
    if isinstance(cell, bool | int | float | Decimal):
        return float(cell)
    try:
        return float(cell) if isinstance(cell, str) and "_" not in cell else None
    except ValueError:
        return None


def _parse_cells(cells: Sequence[Any]) -> Sequence[float | None]:
    """Return the number in each cell, NaN if its value is missing, None if it holds something else."""
    if not all(isinstance(cell, str) for cell in cells):
        return [_parse_cell(cell) for cell in cells]
    try:
        if "_" not in "".join(cells):
            return list(map(float, cells))  # most columns hold numbers alone
    except ValueError:
        pass
    parsed = {cell: _parse_cell(cell) for cell in set(cells)}  # a code occurs in many rows
    return [parsed[cell] for cell in cells]


def _parse_cell(cell: object) -> float | None:
    return math.nan if is_missing(cell) else parse_number(cell)


def parse_measured_column(where: str, name: str, cells: Sequence[object]) -> MeasuredColumn | None:
    """Return `cells` [N] as numbers; None if most are not numbers; refuse a column in which only some are not.

    Args:
        where: the file, for the message.
        name: the column's name.
        cells: text or numbers.

    Raises:
        Mistake: most values are numbers but one is not, or one is too large to compute with.
    """
    numbers = _parse_cells(cells)
    if None in numbers:
        strange = [row for row, number in enumerate(numbers) if number is None]
        known = sum(number is not None and not math.isnan(number) for number in numbers)
        if len(strange) >= known:
            return None
        raise Mistake(
            f"{where}: row {strange[0] + 1}: {name} = {toml_text(cells[strange[0]])}, where most rows hold a number; "
            "correct it, or leave it empty if it is missing"
        )
    values = np.array(numbers, dtype=np.float64)
    too_large = np.flatnonzero(np.abs(values) > np.finfo(np.float32).max)
    if len(too_large):
        raise Mistake(f"{where}: row {too_large[0] + 1}: {name} = {values[too_large[0]]}; give a finite number")
    return MeasuredColumn(name, values)


def require_distinct(where: str, column: MeasuredColumn) -> MeasuredColumn:
    """Return the column, and refuse it if its values are too similar for float32.

    Args:
        where: the file, for the message.
        column: what is to be learned from.

    Raises:
        Mistake: all values are large, and so close together that float32 can hardly distinguish them.
    """
    values = column.values[~np.isnan(column.values)]
    if len(values) and _is_narrow_for_float32(values.min(), values.max()):
        raise Mistake(
            f"{where}: {column.name} holds numbers from {values.min():.0f} to {values.max():.0f}, which 32 bits hardly "
            "keep apart; subtract what they have in common, or leave the column out"
        )
    return column


def _is_narrow_for_float32(least: float, largest: float) -> bool:
    """Return whether large numbers in this range, such as an hour's time stamps, are only a few float32 steps apart.

    >>> _is_narrow_for_float32(1_700_000_000, 1_700_003_600), _is_narrow_for_float32(1_700_000_000, 1_700_086_400)
    (True, False)
    """
    size = max(abs(least), abs(largest))
    step = np.spacing(np.float32(size))
    return bool(size >= _MAX_EXACT_FLOAT32 and 0 < largest - least < _MIN_FLOAT32_STEPS * step)
