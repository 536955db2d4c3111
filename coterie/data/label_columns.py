"""Labels of a table that are not one class for each row: numbers to predict, or several labels.

Legend: N rows, L label columns.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from coterie.core.errors import Mistake
from coterie.core.toml_text import toml_text
from coterie.data.feature_encoding import parse_number
from coterie.data.raw_table import SCALARS, Labels, RawTable, read_complete_column, read_labels, require_scalars

_FLAGS = {"1": 1, "true": 1, "yes": 1, "0": 0, "false": 0, "no": 0}


def read_task_labels(table: RawTable, column: str, columns: Sequence[str] | None, task: str | None) -> Labels:
    """Return the labels of each row, as a kind of task has them.

    One column holds classes, unless the task is a regression: then it holds numbers. Several columns hold 0 and 1 each,
    int64 [N, L], unless the task is a regression or a cell is another number: then float32 [N, L].

    Args:
        table: the table.
        column: the label column, which counts where `columns` is None.
        columns: several label columns.
        task: the kind of task, where the user has chosen one.

    Raises:
        Mistake: a column is missing, or a cell cannot be used.
    """
    if columns is None:
        return (
            Labels(_numbers(table, "label_column", column), None) if task == "regression" else _classes(table, column)
        )
    if isinstance(columns, str) or not columns or len(set(columns)) < len(columns):
        raise Mistake(key="label_columns", value=columns, allowed="a list of columns, each once")
    cells = [_cells(table, "label_columns", name) for name in columns]
    flags = [[_flag(cell) for cell in column] for column in cells]
    are_flags = all(flag is not None for column in flags for flag in column)
    if task == "multilabel" and not are_flags:
        k = next(k for k, column in enumerate(flags) if None in column)
        row = flags[k].index(None)
        raise Mistake(
            f"{table.path}: row {row + 1}: {columns[k]} = {toml_text(cells[k][row])}; a label of several is 0 or 1, "
            "true or false, yes or no"
        )
    if are_flags and task != "regression":
        return Labels(np.array(flags, dtype=np.int64).T, None)
    return Labels(np.stack([_numbers(table, "label_columns", name) for name in columns], axis=1), None)


def _classes(table: RawTable, column: str) -> Labels:
    """Return the classes of a column; of labels that are no classes, say how they can be numbers to predict."""
    try:
        return read_labels(table, column)
    except Mistake as mistake:
        if "a class is a whole number" not in mistake.sentence:
            raise
        raise Mistake(f'{mistake.sentence}; to predict numbers, choose the task "regression"') from mistake


def _cells(table: RawTable, key: str, column: str) -> Sequence[object]:
    cells = read_complete_column(table, key, column)
    require_scalars(table.path, column, cells, SCALARS, "a label is one number or truth value")
    return cells


def _flag(cell: object) -> int | None:
    """Return 1 or 0 for a cell that says true or false; None for another one."""
    number = parse_number(cell)
    return _FLAGS.get(f"{number:g}" if number is not None else str(cell).strip().lower())


def _numbers(table: RawTable, key: str, column: str) -> NDArray[np.float32]:
    """Return the numbers of a column, float32 [N]."""
    cells = _cells(table, key, column)
    numbers = [parse_number(cell) for cell in cells]
    for row, number in enumerate(numbers, 1):
        if number is None or not abs(number) <= float(np.finfo(np.float32).max):
            shown = toml_text(cells[row - 1])
            raise Mistake(f"{table.path}: row {row}: {column} = {shown}; a number to predict must be a finite number")
    return np.array(numbers, dtype=np.float32)
