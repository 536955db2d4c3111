"""Tables: measured and coded columns become one matrix of features.

A measured column becomes one feature, NaN where it is missing; `coterie.data.standardize` scales it and fills the gaps.
A coded column becomes a 0 or 1 for each of its categories, all 0 for a value that is none of them. Either gets one more
feature, 1 where the value is missing, if it is missing for any training row.

Legend: N rows, F features.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import accumulate
from typing import NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from coterie.core.errors import Mistake

MISSING = frozenset({"", "?", "na", "n/a", "nan", "null", "none"})
"""How a cell of text says that its value is missing, in any case of letters."""


@dataclass(frozen=True)
class Measured:
    """A column of numbers [N], NaN where missing."""

    name: str
    values: NDArray[np.float64]


@dataclass(frozen=True)
class Coded:
    """A column of categories [N], None where missing."""

    name: str
    values: Sequence[str | None]
    categories: Sequence[str]


@dataclass(frozen=True)
class Column:
    """How a column becomes features, which the training rows decide.

    Attributes:
        name: the column's.
        categories: of a coded column; None: it is measured.
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


class Table(NamedTuple):
    """Features of all rows, x float32 [N, F], and how columns became them."""

    x: Tensor
    columns: list[Column]


def feature_names(columns: Sequence[Column]) -> list[str]:
    """The name of each feature [F]."""
    return [name for column in columns for name in column.feature_names]


def numeric(columns: Sequence[Column]) -> list[int]:
    """The features that are measured."""
    firsts = accumulate((len(column.feature_names) for column in columns), initial=0)
    return [first for first, column in zip(firsts, columns, strict=False) if column.categories is None]


def encode(columns: Sequence[Measured | Coded], train: NDArray[np.int64]) -> Table:
    """The features of `columns`, in their order.

    Args:
        columns: the columns [N].
        train: the training rows; only they decide which features there are.
    """
    known = [
        Column(c.name, None if isinstance(c, Measured) else tuple(c.categories), bool(_missing(c)[train].any()))
        for c in columns
    ]
    return Table(features(columns, known), known)


def features(columns: Sequence[Measured | Coded], known: Sequence[Column]) -> Tensor:
    """The features float32 [N, F] of rows that need not be those that decided which features there are.

    Args:
        columns: the columns [N], one for each of `known`.
        known: how they become features.
    """
    found: list[NDArray[np.float64]] = []
    for column, how in zip(columns, known, strict=True):
        if isinstance(column, Measured):
            found.append(column.values)
        else:
            cells = np.array(column.values, dtype=object)
            found += [(cells == c).astype(np.float64) for c in how.categories or ()]
        if how.missing:
            found.append(_missing(column).astype(np.float64))
    return torch.from_numpy(np.stack(found, axis=1)).to(torch.float32)


def _missing(column: Measured | Coded) -> NDArray[np.bool_]:
    """Where a value is missing [N]."""
    if isinstance(column, Measured):
        return np.isnan(column.values)
    return np.array([v is None for v in column.values], dtype=bool)


def is_missing(cell: object) -> bool:
    """Whether a cell, of text or of a typed table, holds no value."""
    if isinstance(cell, str):
        return cell.strip().lower() in MISSING
    return cell is None or (isinstance(cell, float) and math.isnan(cell))


def as_number(cell: object) -> float | None:
    """The number in a cell that is not missing, or None where it is no number.

    >>> as_number("1e3"), as_number("1_000")  # the second is a code: only Python's own source writes numbers so
    (1000.0, None)
    """
    if isinstance(cell, bool | int | float):
        return float(cell)
    try:
        return float(cell) if isinstance(cell, str) and "_" not in cell else None
    except ValueError:
        return None


def measured(where: str, name: str, cells: Sequence[object]) -> Measured | None:
    """The column `cells` [N] as numbers, or None where most of its values are none.

    Args:
        where: the file, for the message.
        name: the column's name.
        cells: text or numbers.

    Raises:
        Mistake: most values are numbers but one is not, or one is too large to compute with.
    """
    numbers = [math.nan if is_missing(c) else as_number(c) for c in cells]
    strange = [row for row, number in enumerate(numbers) if number is None]
    known = sum(number is not None and not math.isnan(number) for number in numbers)
    if strange:
        if len(strange) >= known:
            return None
        raise Mistake(
            f"{where}: row {strange[0] + 1}: {name} = {cells[strange[0]]!r}, where most rows hold a number; "
            "correct it, or leave it empty if it is missing"
        )
    values = np.array(numbers, dtype=np.float64)
    too_large = np.flatnonzero(np.abs(values) > np.finfo(np.float32).max)
    if len(too_large):
        raise Mistake(f"{where}: row {too_large[0] + 1}: {name} = {values[too_large[0]]}; give a finite number")
    return Measured(name, values)


def apart(where: str, column: Measured) -> Measured:
    """The column, if float32 keeps what it holds apart.

    Args:
        where: the file, for the message.
        column: what is to be learned from.

    Raises:
        Mistake: all values are large, and so close together that float32 blurs them.
    """
    seen = column.values[~np.isnan(column.values)]
    if len(seen) and _one_to_float32(seen.min(), seen.max()):
        raise Mistake(
            f"{where}: {column.name} holds numbers from {seen.min():.0f} to {seen.max():.0f}, which 32 bits hardly "
            "keep apart; subtract what they have in common, or leave the column out"
        )
    return column


def _one_to_float32(least: float, largest: float) -> bool:
    """Whether large numbers in this range, such as an hour's time stamps, are a few steps of float32 apart at most.

    >>> _one_to_float32(1_700_000_000, 1_700_003_600), _one_to_float32(1_700_000_000, 1_700_086_400)
    (True, False)
    """
    size = max(abs(least), abs(largest))
    return bool(size >= 2**24 and 0 < largest - least < 128 * np.spacing(np.float32(size)))
