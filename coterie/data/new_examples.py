"""Examples that no client held, read from a file of the user's as inputs of a trained model.

Legend: N examples.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import torch
from torch import Tensor

from coterie.core.errors import Mistake, few
from coterie.core.examples import Examples
from coterie.core.toml_text import toml_text
from coterie.data.feature_encoding import (
    CodedColumn,
    ColumnEncoding,
    MeasuredColumn,
    apply_encodings,
    find_gaps,
    is_missing,
    parse_measured_column,
    parse_number,
)
from coterie.data.model_inputs import Inputs
from coterie.data.numpy_arrays import inputs_from_array, scale_pixels
from coterie.data.picture_pixels import fit_squares, stack_pixels
from coterie.data.raw_table import SCALARS, RawTable, require_scalars
from coterie.data.regular_file import is_regular
from coterie.data.sources.csv import read_csv
from coterie.data.sources.images import PICTURE_SUFFIXES, list_pictures, open_pictures
from coterie.data.sources.npz import read_npz
from coterie.data.sources.parquet import read_parquet

_TABLE_SUFFIXES = {".csv", ".tsv", ".txt", ".parquet"}


@dataclass(frozen=True)
class NewExamples:
    """Examples, and facts about them.

    Attributes:
        x: the inputs of the model [N, ...].
        names: what each is called: its row, from 1, or the picture's path below the folder.
        labels: the class that the file gives each, or a picture's folder, which need not be a known class; None where
            there is none.
        notes: what the user should know, a sentence each.
    """

    x: Tensor
    names: Sequence[str]
    labels: Sequence[str | None]
    notes: Sequence[str] = ()


def read_new_examples(path: Path, inputs: Inputs, label_column: str | None = None) -> NewExamples:
    """Read examples for a model, and standardise them, from a table, an .npz, a picture or a folder of pictures.

    Args:
        path: the file (a table is .csv or .parquet) or folder.
        inputs: those of the model.
        label_column: the column of a table that holds the class of each row, if there is one.

    Raises:
        Mistake: it cannot be read, or its examples differ in kind from those that the model learned from.
    """
    suffix = path.suffix.lower()
    if not path.exists():
        raise Mistake(f"{path}: there is no such file or folder")
    if not path.is_dir() and not is_regular(path):
        raise Mistake(
            f"{path}: is a pipe, a socket or a device and cannot be read; name a file or a folder of pictures"
        )
    if path.is_dir() or suffix in PICTURE_SUFFIXES:
        examples = _read_pictures(path, inputs)
    elif suffix == ".npz":
        examples = _read_archive(path, inputs)
    elif suffix in _TABLE_SUFFIXES:
        examples = _read_table(path, inputs, label_column)
    else:
        raise Mistake(f"{path}: must be a .csv, .parquet or .npz file, a picture, or a folder of pictures")
    notes = examples.notes
    if inputs.scaling.columns and inputs.scaling.scale is None:
        sentence = "each client was standardised by its own mean and deviation, so these examples are by theirs"
        notes = [*notes, sentence]
    return replace(examples, x=inputs.scaling(Examples(examples.x)).x, notes=notes)


def _read_table(path: Path, inputs: Inputs, label_column: str | None) -> NewExamples:
    if not inputs.columns:
        raise Mistake(f"{path}: is a table, but the model did not learn from one; give {_describe_expected(inputs)}")
    is_parquet = path.suffix.lower() == ".parquet"
    table = read_parquet(path) if is_parquet else RawTable(str(path), read_csv(path))
    missing = [encoding.name for encoding in inputs.columns if encoding.name not in table.columns]
    if missing:
        present = ", ".join(map(toml_text, table.columns)) or "none"
        lacks = few([toml_text(name) for name in missing])
        raise Mistake(f"{path}: lacks {lacks}, which the model learned from; it has {present}")
    number = len(table.columns[inputs.columns[0].name])
    if not number:
        raise Mistake(f"{path}: holds no rows; each row is an example")
    columns = [_read_feature(table, encoding) for encoding in inputs.columns]
    answers = table.columns.get(label_column or "", [None] * number)
    names = [str(row + 1) for row in range(number)]
    labels = [_match_name(cell, inputs.classes or ()) for cell in answers]
    notes = [*_note_new_categories(columns), *_note_new_gaps(columns, inputs.columns)]
    return NewExamples(apply_encodings(columns, inputs.columns), names, labels, notes)


def _read_feature(table: RawTable, encoding: ColumnEncoding) -> MeasuredColumn | CodedColumn:
    """Read the cells of a column in the same way as those of the training rows."""
    cells = table.columns[encoding.name]
    if encoding.categories is not None:
        require_scalars(table.path, encoding.name, cells, SCALARS, "the model learned from one text or number there")
        return CodedColumn(
            encoding.name, [_match_name(cell, encoding.categories) for cell in cells], encoding.categories
        )
    column = parse_measured_column(table.path, encoding.name, cells)
    if column is None:
        strange = next(cell for cell in cells if not is_missing(cell) and parse_number(cell) is None)
        raise Mistake(f"{table.path}: {encoding.name} = {toml_text(strange)}, but the model learned from numbers there")
    return column


def _match_name(cell: object, names: Collection[str]) -> str | None:
    """Return the name that a cell holds, or its text if it holds another value; None where its value is missing.

    >>> [_match_name(cell, ["1", "b"]) for cell in ("1.0", " b", "c", "?")]
    ['1', 'b', 'c', None]
    """
    text, number = str(cell).strip(), parse_number(cell)
    if text not in names and number is not None and number.is_integer() and f"{number:.0f}" in names:
        return f"{number:.0f}"
    return text if text in names or not is_missing(cell) else None


def _note_new_categories(columns: Sequence[MeasuredColumn | CodedColumn]) -> list[str]:
    """Return a sentence for each coded column with values that no training row had.

    A column with one category is left out: its other value needs no category, and training rows may have had it.
    """
    notes = []
    for column in columns:
        if isinstance(column, CodedColumn) and len(column.categories) > 1:
            new = sorted({v for v in column.values if v is not None and v not in column.categories})
            if new:
                values = few([toml_text(v) for v in new])
                notes.append(f"no training row had {column.name} = {values}; read as none of the known values")
    return notes


def _note_new_gaps(columns: Sequence[MeasuredColumn | CodedColumn], encodings: Sequence[ColumnEncoding]) -> list[str]:
    """Return a sentence for each column that lacks a value here, and lacked none in the training rows."""
    notes = []
    for column, encoding in zip(columns, encodings, strict=True):
        gaps = 0 if encoding.missing else int(find_gaps(column).sum())
        if gaps:
            meaning = "none of the known values" if encoding.categories is not None else "any gap"
            rows = "row" if gaps == 1 else "rows"
            notes.append(f"no training row lacked {column.name}, but {gaps} {rows} here; read as {meaning}")
    return notes


def _read_archive(path: Path, inputs: Inputs) -> NewExamples:
    arrays = read_npz(path, ["x"], optional=["y"])
    x = _require_kind(f"{path}: x", inputs_from_array(f"{path}: x", arrays["x"]), inputs)
    y = arrays.get("y")
    has_labels = y is not None and y.ndim == 1 and len(y) == len(x)
    labels = [str(value) for value in y.tolist()] if has_labels and y is not None else [None] * len(x)
    return NewExamples(x, [str(row + 1) for row in range(len(x))], labels)


def _read_pictures(path: Path, inputs: Inputs) -> NewExamples:
    """Read a picture, or all of a folder; refuse pictures of another size, unless those of training were scaled too."""
    files = [path] if path.is_file() else list_pictures(path)
    if not files:
        raise Mistake(f"{path}: holds no pictures; give {_describe_expected(inputs)}")
    pictures = open_pictures(files)
    x = scale_pixels(stack_pixels(pictures if inputs.side is None else fit_squares(pictures, inputs.side)))
    if len(inputs.shape) == 3 and x.shape[1] == 1:
        x = x.expand(-1, inputs.shape[0], -1, -1)  # a grey picture fills all channels alike
    names = [file.name if path.is_file() else str(file.relative_to(path)) for file in files]
    return NewExamples(_require_kind(str(path), x, inputs), names, [file.parent.name for file in files])


def _require_kind(where: str, x: Tensor, inputs: Inputs) -> Tensor:
    """Return x, and refuse it if its examples differ in shape or type from the model's inputs."""
    if list(x.shape[1:]) != list(inputs.shape) or x.is_floating_point() == inputs.tokens:
        kind = "numbers" if x.dtype == torch.float32 else "whole numbers"
        raise Mistake(
            f"{where}: each example is {kind} of shape {list(x.shape[1:])}; give {_describe_expected(inputs)}"
        )
    return x


def _describe_expected(inputs: Inputs) -> str:
    if inputs.columns:
        return f"a table with {few([toml_text(column.name) for column in inputs.columns])}"
    if len(inputs.shape) == 3:
        channels, height, width = inputs.shape
        kind = "grey pictures" if channels == 1 else "pictures"
        return f"{kind} of {width} x {height} pixels, or an npz whose x is [N, {channels}, {height}, {width}]"
    each = ", ".join(["N", *map(str, inputs.shape)])
    return f"an npz whose x is {'whole numbers ' if inputs.tokens else ''}[{each}]"
