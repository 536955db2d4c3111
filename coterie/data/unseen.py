"""Examples that no client held, from a file of the user's, as a trained model takes them.

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
from coterie.data.arrays import images as scaled
from coterie.data.arrays import inputs as as_inputs
from coterie.data.frame import Frame
from coterie.data.inputs import Inputs
from coterie.data.pictures import pixels
from coterie.data.sources.csv import read as read_csv
from coterie.data.sources.images import SUFFIXES, below, opened
from coterie.data.sources.npz import read as read_npz
from coterie.data.sources.parquet import read as read_parquet
from coterie.data.table import Coded, Column, Measured, as_number, features, is_missing, measured

TABLES = {".csv", ".tsv", ".txt", ".parquet"}


@dataclass(frozen=True)
class Unseen:
    """Examples, and what is known about them.

    Attributes:
        x: as the model takes them [N, ...].
        names: each one's: its row, from 1, or the picture's path below the folder.
        labels: the class that the file itself gives each, or a picture's folder, which need not be one; else None.
        notes: what the user should know, a sentence each.
    """

    x: Tensor
    names: Sequence[str]
    labels: Sequence[str | None]
    notes: Sequence[str] = ()


def unseen(path: Path, inputs: Inputs, label_column: str | None = None) -> Unseen:
    """The examples in a table (.csv, .parquet), in an archive (.npz) or in a picture or a folder of pictures.

    Args:
        path: the file or folder.
        inputs: what the model takes.
        label_column: where the table says which class a row is, if it does.

    Raises:
        Mistake: it cannot be read, or holds something else than the model learned from.
    """
    kind = path.suffix.lower()
    if not path.exists():
        raise Mistake(f"{path}: there is no such file or folder")
    if path.is_dir() or kind in SUFFIXES:
        found = _pictures(path, inputs)
    elif kind == ".npz":
        found = _archive(path, inputs)
    elif kind in TABLES:
        found = _table(path, inputs, label_column)
    else:
        raise Mistake(f"{path}: must be a .csv, .parquet or .npz file, a picture, or a folder of pictures")
    notes = found.notes
    if inputs.scaling.columns and inputs.scaling.scale is None:
        notes = [*notes, "the clients standardised each by its own mean and deviation, so these examples go by theirs"]
    return replace(found, x=inputs.scaling(Examples(found.x)).x, notes=notes)


def _table(path: Path, inputs: Inputs, label_column: str | None) -> Unseen:
    if not inputs.columns:
        raise Mistake(f"{path}: is a table, and the model learned from none; give {_wanted(inputs)}")
    frame = read_parquet(path) if path.suffix.lower() == ".parquet" else Frame(str(path), read_csv(path))
    absent = [column.name for column in inputs.columns if column.name not in frame.columns]
    if absent:
        held = ", ".join(map(repr, frame.columns)) or "none"
        raise Mistake(f"{path}: lacks {few([repr(a) for a in absent])}, which the model learned from; it has {held}")
    number = len(frame.columns[inputs.columns[0].name])
    if not number:
        raise Mistake(f"{path}: holds no rows; one example for each row is needed")
    columns = [_column(frame, column) for column in inputs.columns]
    answers = frame.columns.get(label_column or "", [None] * number)
    names = [str(row + 1) for row in range(number)]
    labels = [_known(cell, inputs.classes or ()) for cell in answers]
    return Unseen(features(columns, inputs.columns), names, labels, _new(columns))


def _column(frame: Frame, known: Column) -> Measured | Coded:
    """The cells of a column as the training rows' were read."""
    cells = frame.columns[known.name]
    if known.categories is not None:
        return Coded(known.name, [_known(cell, known.categories) for cell in cells], known.categories)
    found = measured(frame.path, known.name, cells)
    if found is None:
        strange = next(cell for cell in cells if not is_missing(cell) and as_number(cell) is None)
        raise Mistake(f"{frame.path}: {known.name} = {strange!r}, but the model learned from numbers there")
    return found


def _known(cell: object, names: Collection[str]) -> str | None:
    """Which of the names a cell holds, or what else; None where its value is missing.

    >>> _known("1.0", ["0", "1"]), _known(" b", ["a", "b"]), _known("c", ["a", "b"]), _known("?", ["a", "b"])
    ('1', 'b', 'c', None)
    """
    text, number = str(cell).strip(), as_number(cell)
    if text not in names and number is not None and number.is_integer() and f"{number:.0f}" in names:
        return f"{number:.0f}"
    return text if text in names or not is_missing(cell) else None


def _new(columns: Sequence[Measured | Coded]) -> list[str]:
    """A sentence for each coded column with values that no training row had. Of two codes one may stand for both."""
    notes = []
    for column in columns:
        if isinstance(column, Coded) and len(column.categories) > 1:
            strange = sorted({v for v in column.values if v is not None and v not in column.categories})
            if strange:
                notes.append(f"no training row had {column.name} = {few([repr(v) for v in strange])}; read as none")
    return notes


def _archive(path: Path, inputs: Inputs) -> Unseen:
    arrays = read_npz(path, ["x"], optional=["y"])
    x = _fitting(f"{path}: x", as_inputs(f"{path}: x", arrays["x"]), inputs)
    y = arrays.get("y")
    known = y is not None and y.ndim == 1 and len(y) == len(x)
    labels = [str(value) for value in y.tolist()] if known and y is not None else [None] * len(x)
    return Unseen(x, [str(row + 1) for row in range(len(x))], labels)


def _pictures(path: Path, inputs: Inputs) -> Unseen:
    files = [path] if path.is_file() else below(path)
    if not files:
        raise Mistake(f"{path}: holds no pictures; give {_wanted(inputs)}")
    x = scaled(pixels(opened(files)))
    if len(inputs.shape) == 3 and x.shape[1] == 1:
        x = x.expand(-1, inputs.shape[0], -1, -1)  # grey fills all channels alike
    names = [file.name if path.is_file() else str(file.relative_to(path)) for file in files]
    return Unseen(_fitting(str(path), x, inputs), names, [file.parent.name for file in files])


def _fitting(where: str, x: Tensor, inputs: Inputs) -> Tensor:
    """x if its examples are of the model's kind.

    Raises:
        Mistake: they are not.
    """
    if list(x.shape[1:]) != list(inputs.shape) or x.is_floating_point() == inputs.tokens:
        kind = "numbers" if x.dtype == torch.float32 else "whole numbers"
        raise Mistake(f"{where}: holds {kind} of shape {list(x.shape[1:])} an example; give {_wanted(inputs)}")
    return x


def _wanted(inputs: Inputs) -> str:
    if inputs.columns:
        return f"a table with {few([repr(column.name) for column in inputs.columns])}"
    if len(inputs.shape) == 3:
        channels, height, width = inputs.shape
        kind = "grey pictures" if channels == 1 else "pictures"
        return f"{kind} of {width} x {height} pixels, or an npz whose x is [N, {channels}, {height}, {width}]"
    each = ", ".join(["N", *map(str, inputs.shape)])
    return f"an npz whose x is {'whole numbers ' if inputs.tokens else ''}[{each}]"
