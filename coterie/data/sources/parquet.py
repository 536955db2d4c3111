"""The source parquet: a Parquet file of the user's own."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from coterie.core.errors import Mistake, reason
from coterie.core.packages import import_package
from coterie.core.toml_text import toml_text
from coterie.data.label_columns import read_task_labels
from coterie.data.origins import note_folder
from coterie.data.raw_table import RawTable, source_from_table
from coterie.data.regular_file import require_file
from coterie.data.source import Source


def parquet(
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
    """Load a Parquet file: each row is an example; the arguments are those of `csv`.

    The file has types: a column of numbers or truth values is measured, a dictionary (categorical) column is coded with
    the categories that the file declares, and a column of plain strings cannot be a feature. As a label, an ordered
    dictionary column keeps its order, and its categories that occur in no row.

    Raises:
        Mistake: pyarrow is not installed, the file cannot be read, a column is missing, or a value cannot be used.
    """
    table = read_parquet(Path(path))
    return source_from_table(
        "parquet",
        table,
        label_column,
        feature_columns,
        client_column,
        test_column,
        test_fraction,
        labels=read_task_labels(table, label_column, label_columns, task) if labels else False,
        label_columns=label_columns,
    )


def read_parquet(path: Path) -> RawTable:
    """Read the columns of a Parquet file.

    Raises:
        Mistake: pyarrow is not installed, or the file cannot be read.
    """
    pyarrow, reader = _import_pyarrow()
    if not path.is_dir():  # in a folder each file holds some of the rows
        require_file(path)
        _require_names(path, reader.read_schema, pyarrow)
    else:
        note_folder(path)
    try:
        table = reader.read_table(path)
        columns = {name: table.column(name).to_pylist() for name in table.column_names}
        declared = {name: _list_codes(table.column(name), pyarrow) for name in table.column_names}
    except (OSError, pyarrow.ArrowException, ValueError, OverflowError) as error:
        raise Mistake(f"{path}: cannot be read as a Parquet file ({reason(error)})") from error
    categories = {name: codes for name, codes in declared.items() if codes is not None}
    classes = {name: codes for name, codes in categories.items() if table.column(name).type.ordered}
    return RawTable(str(path), columns, categories, classes, typed=True)


def _require_names(path: Path, read_schema: Any, pyarrow: Any) -> None:
    """Refuse a file in which two columns have one name."""
    try:
        names = read_schema(path).names
    except (OSError, pyarrow.ArrowException, ValueError) as error:
        raise Mistake(f"{path}: cannot be read as a Parquet file ({reason(error)})") from error
    twice = [name for name, times in Counter(names).items() if times > 1]
    if twice:
        raise Mistake(f"{path}: names {toml_text(twice[0])} twice; it must name each column once")


def _list_codes(column: Any, pyarrow: Any) -> list[str] | None:
    """Return the codes that a dictionary column declares; None for other columns, and for codes that are no scalars."""
    kinds = pyarrow.types
    if not kinds.is_dictionary(column.type):
        return None
    of = column.type.value_type
    if not (kinds.is_string(of) or kinds.is_large_string(of) or kinds.is_integer(of) or kinds.is_boolean(of)):
        return None
    chunks = column.unify_dictionaries().chunks
    return [str(v) for v in chunks[0].dictionary.to_pylist()] if chunks else []


def _import_pyarrow() -> tuple[Any, Any]:
    pyarrow, reader = (import_package(name, "source", "parquet", "parquet") for name in ("pyarrow", "pyarrow.parquet"))
    return pyarrow, reader
