"""The columns of a data set of the package `datasets`, read one by one.

Legend: N rows.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np

from coterie.core.errors import Mistake
from coterie.core.toml_text import toml_text
from coterie.data.raw_table import RawTable

IS_TEST_COLUMN = "is a row of the test split"
"""The column that says for each row whether it is for testing."""


@dataclass(frozen=True, eq=False)
class DatasetColumns(Mapping[str, Sequence[object]]):
    """Columns by name: the rows of the training split and, after them, those of the test split if there is one.

    A column [N] is read when it is looked up. A class appears by its name, and -1, which stands for a missing label, as
    None. Besides the columns that all splits have there is `IS_TEST_COLUMN`.

    Attributes:
        parts: a `datasets.Dataset` for each split.
        where: what messages call the data.
    """

    parts: Sequence[Any]
    where: str

    @cached_property
    def names(self) -> dict[str, None]:
        """The names of the columns that all splits have, in their order."""
        in_all = set.intersection(*(set(part.column_names) for part in self.parts))
        return {name: None for name in self.parts[0].column_names if name in in_all}

    def __iter__(self) -> Iterator[str]:
        return iter(self.names)

    def __len__(self) -> int:
        return len(self.names)

    def __contains__(self, name: object) -> bool:
        return name in self.names or name == IS_TEST_COLUMN

    def __getitem__(self, name: str) -> Sequence[object]:
        if name == IS_TEST_COLUMN:
            return [k > 0 for k, part in enumerate(self.parts) for _ in range(len(part))]
        if name not in self.names:
            raise KeyError(name)
        cells = list(self.cells(name))
        classes = self.classes.get(name)
        if classes is None:
            return cells
        return [None if cell is None or not 0 <= cell < len(classes) else classes[cell] for cell in cells]

    def cells(self, name: str) -> Iterator[Any]:
        """Yield the values of a column as the package gives them."""
        if name in self._plain_columns:
            return (cell for table in self._plain_tables for cell in table.column(name).to_pylist())
        return (cell for part in self.parts for cell in part[name])

    @cached_property
    def _plain_columns(self) -> set[str]:
        """The columns of plain values, which the package stores as it gives them."""
        return {name for name in self.names if type(self.features[name]).__name__ in ("Value", "ClassLabel")}

    @cached_property
    def _plain_tables(self) -> list[Any]:
        """The plain columns of each split as a table of Arrow.

        The package takes a time for one column that grows with the number of all.
        """
        return [part.select_columns([*self._plain_columns]).with_format("arrow")[:] for part in self.parts]

    @cached_property
    def features(self) -> Mapping[str, Any]:
        """The declared type of each column; the package makes a copy of all whenever it is asked."""
        return dict(self.parts[0].features)

    def holds_lists(self, name: str) -> bool:
        """Return whether the values of a column are lists or arrays."""
        return self.type_name(name).startswith(("List", "LargeList", "Sequence", "Array", "list"))

    def type_name(self, name: str) -> str:
        """Return the declared type of a column: "Image", "ClassLabel", "List", or a plain type such as "string"."""
        feature = self.features[name]
        kind = type(feature).__name__
        return str(feature.dtype) if kind == "Value" else kind

    @cached_property
    def classes(self) -> dict[str, list[str]]:
        """The names of the declared classes, for each column that declares some."""
        return {name: list(self.features[name].names) for name in self.names if self.type_name(name) == "ClassLabel"}

    def to_table(self) -> RawTable:
        """Return these columns as a table, with what the data set declares about them."""
        return RawTable(self.where, self, self.classes, self.classes, typed=True)

    def read_array(self, name: str) -> np.ndarray[Any, Any]:
        """Return a column of lists or arrays [N, ...], in the type that the data set declares.

        Raises:
            Mistake: the rows differ in shape, or a value is missing.
        """
        try:
            arrays = [np.asarray(part.with_format("numpy")[name][:]) for part in self.parts]
        except (ValueError, AttributeError, TypeError):  # for rows of several shapes, and for one that is missing
            arrays = []
        if not arrays or any(a.dtype == object or a.shape[1:] != arrays[0].shape[1:] for a in arrays):
            raise Mistake(f"{self.where}: {name} holds lists of unequal lengths, or none; bring all rows to one shape")
        values, dtype = np.concatenate(arrays), self.innermost(name).dtype
        if values.dtype.kind == "f" and np.dtype(dtype).kind in "biu":  # a gap has made floats of whole numbers
            row = int(np.argwhere(np.isnan(values))[0][0]) + 1
            raise Mistake(f"{self.where}: row {row}: {name} lacks a value; give a number in every place")
        return values.astype(dtype, copy=False)  # the package gives every whole number as int64

    def innermost(self, name: str) -> Any:
        """Return the declared type of what the lists or arrays of a column hold."""
        found = self.features[name]
        while hasattr(found, "feature"):
            found = found.feature
        return found

    def require(self, key: str, name: str | None) -> None:
        """Refuse a column `name`, the value of the argument `key`, that does not exist; None is allowed.

        Raises:
            Mistake: it does not exist.
        """
        if name is not None and name not in self.names:
            held = ", ".join(map(toml_text, self.names)) or "none"
            raise Mistake(f"{self.where} has no such column; its columns are {held}", key=key, value=name)
