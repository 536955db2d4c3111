"""The source parquet: a Parquet file of the user's own."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from coterie.core.errors import Mistake, reason
from coterie.core.packages import import_package
from coterie.data.raw_table import RawTable, source_from_table
from coterie.data.source import Source


def parquet(
    path: str | Path,
    label_column: str = "label",
    feature_columns: Sequence[str] | None = None,
    client_column: str | None = None,
    test_column: str | None = None,
    test_fraction: float = 0.2,
    labels: bool = True,
) -> Source:
    """Load a Parquet file: each row is an example; the arguments are those of `csv`.

    The file has types: a column of numbers or truth values is measured, a dictionary (categorical) column is coded with
    the categories that the file declares, and a column of plain strings cannot be a feature. As a label, an ordered
    dictionary column keeps its order, and its categories that occur in no row.

    Raises:
        Mistake: pyarrow is not installed, the file cannot be read, a column is missing, or a value cannot be used.
    """
    table = read_parquet(Path(path))
    return source_from_table(
        "parquet", table, label_column, feature_columns, client_column, test_column, test_fraction, labels=labels
    )


def read_parquet(path: Path) -> RawTable:
    """Read the columns of a Parquet file.

    Raises:
        Mistake: pyarrow is not installed, or the file cannot be read.
    """
    pyarrow, reader = _import_pyarrow()
    if not path.exists():
        raise Mistake("there is no such file", key="path", value=path)
    try:
        table = reader.read_table(path)
    except (OSError, pyarrow.ArrowException) as error:
        raise Mistake(f"{path}: cannot be read as a Parquet file ({reason(error)})") from error
    columns: dict[str, Sequence[object]] = {}
    categories: dict[str, Sequence[str]] = {}
    classes: dict[str, Sequence[str]] = {}
    for name in table.column_names:
        column = table.column(name)
        if pyarrow.types.is_dictionary(column.type):
            codes = column.unify_dictionaries().chunks
            categories[name] = [str(v) for v in codes[0].dictionary.to_pylist()] if codes else []
            if column.type.ordered:
                classes[name] = categories[name]
        columns[name] = column.to_pylist()
    return RawTable(str(path), columns, categories, classes, typed=True)


def _import_pyarrow() -> tuple[Any, Any]:
    pyarrow, reader = (import_package(name, "source", "parquet", "parquet") for name in ("pyarrow", "pyarrow.parquet"))
    return pyarrow, reader
