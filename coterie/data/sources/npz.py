"""The source npz: a numpy archive of the user's own."""

from __future__ import annotations

import zipfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from coterie.core.errors import Mistake, reason
from coterie.core.examples import Examples
from coterie.core.toml_text import toml_text
from coterie.data.numpy_arrays import inputs_from_array, labels_from_array
from coterie.data.regular_file import require_file
from coterie.data.source import Source
from coterie.data.train_test_split import split_rows, strata_by_client

_Arrays = dict[str, NDArray[np.generic]]


def npz(
    path: str | Path,
    client_column: str | None = None,
    test_column: str = "test",
    test_fraction: float = 0.2,
    labels: bool = True,
    task: str | None = None,
) -> Source:
    """Load a numpy archive (.npz) of inputs `x` and labels `y`.

    numpy.savez writes such a file. It holds `x` [N, ...] and `y` [N]; `inputs_from_array` and `labels_from_array` of
    `coterie.data.numpy_arrays` say what they become. If it also holds a truth value for each example under
    `test_column`, the true examples are the test set. Otherwise a fixed test split is taken, stratified by class, and
    by client if there is a client column. Nothing in the file is ever unpickled.

    Args:
        path: the file.
        client_column: the name of the array [N] that holds each example's client id.
        test_column: the name of the array [N] that says which examples to test on; only "test" may be missing.
        test_fraction: what part of the examples becomes the test set if the file does not say.
        labels: whether it holds `y`. If not, all examples that are not marked for testing are for training, by an
            algorithm that needs no labels.
        task: the kind of task; of a regression, `y` holds numbers [N] or [N, L], and of a multilabel task 0 and 1
            [N, L].

    Raises:
        Mistake: the file cannot be read, an array is missing, they differ in length, or a value cannot be used.
    """
    named = {"client_column": client_column, "test_column": None if test_column == "test" else test_column}
    named_by = {key: name for key, name in named.items() if name is not None}
    arrays = read_npz(Path(path), ["x", "y"] if labels else ["x"], named_by, [test_column])
    lengths = {name: len(a) if a.ndim else 0 for name, a in arrays.items()}
    if len(set(lengths.values())) > 1:
        found = ", ".join(f"{n} of {name}" for name, n in lengths.items())
        raise Mistake(f"{path}: its arrays differ in length ({found}); each must hold one entry for each example")
    x = inputs_from_array(f"{path}: x", arrays["x"])
    y, num_classes = labels_from_array(f"{path}: y", arrays["y"], task) if labels else (None, None)
    ids = parse_client_ids(f"{path}: {client_column}", arrays[client_column]) if client_column else None
    everything = Examples(x, y)
    if test_column in arrays:
        train, test = parse_split(f"{path}: {test_column}", arrays[test_column])
    elif y is None:
        train, test = np.arange(len(x)), np.arange(0)
    else:
        strata = y.numpy() if y.dim() == 1 and not y.is_floating_point() else np.zeros(len(y), dtype=np.int64)
        train, test = split_rows(strata_by_client(strata, ids, test_fraction), test_fraction)
    return Source(
        "npz",
        everything.take(torch.from_numpy(train)),
        everything.take(torch.from_numpy(test)) if len(test) else None,
        num_classes,
        groups=None if ids is None else [ids[i] for i in train],
        test_groups=None if ids is None or not len(test) else [ids[i] for i in test],
    )


def read_npz(
    path: Path, needed: Sequence[str], named: Mapping[str, str] | None = None, optional: Sequence[str] = ()
) -> _Arrays:
    """Read the arrays of an archive by name, without unpickling.

    Args:
        path: the file.
        needed: arrays that every such file holds.
        named: arrays that the user named: the argument -> the array's name.
        optional: arrays to read if they exist.

    Raises:
        Mistake: the file cannot be read, or an array is missing.
    """
    require_file(path)
    try:
        with path.open("rb") as file:
            archive = np.load(file, allow_pickle=False)
            if not isinstance(archive, np.lib.npyio.NpzFile):
                write = f"numpy.savez({toml_text(path.name)}, x=..., y=...)"
                raise Mistake(f"{path}: is a single array; write an archive with {write}")
            _require_arrays(path, archive.files, needed, named or {})
            wanted = [*needed, *(named or {}).values(), *optional]
            return {name: _read_array(path, archive, name) for name in wanted if name in archive.files}
    except Mistake:
        raise
    except Exception as error:  # readers of archives, of their compressions and of arrays raise many things
        # For a file that is not an archive, numpy would say that it must be unpickled.
        other = isinstance(error, ValueError) and not zipfile.is_zipfile(path)
        why = "it is another kind of file" if other else reason(error)
        why = "it holds Python objects, which are never unpickled" if "allow_pickle" in why else why
        raise Mistake(
            f"{path}: cannot be read as a numpy archive of plain arrays ({why}); write it with numpy.savez"
        ) from error


def _require_arrays(path: Path, held: Sequence[str], needed: Sequence[str], named: Mapping[str, str]) -> None:
    """Refuse an archive that lacks an array; the other arguments are those of `read_npz`."""
    there = ", ".join(held) or "nothing"
    for name in needed:
        if name not in held:
            raise Mistake(f"{path} holds no array {toml_text(name)}; it holds {there}")
    for key, name in named.items():
        if name not in held:
            raise Mistake(f"{path} holds no such array; it holds {there}", key=key, value=name)


def _read_array(path: Path, archive: Any, name: str) -> NDArray[np.generic]:
    """Return an array of an open archive, in this machine's byte order; refuse one whose header does not fit it."""
    if archive.files.count(name) > 1:
        raise Mistake(f"{path}: holds two arrays called {toml_text(name)}; keep one")
    members = archive.zip.namelist()
    with archive.zip.open(f"{name}.npy" if f"{name}.npy" in members else name) as file:
        array: NDArray[np.generic] = np.lib.format.read_array(file, allow_pickle=False)
        if file.read(1):
            raise Mistake(f"{path}: {name}: holds more than the {list(array.shape)} that it says; write it again")
    return array.astype(array.dtype.newbyteorder("="), copy=False)


def parse_pictures(
    path: str, x: NDArray[np.generic], y: NDArray[np.generic], num_classes: int, what: str = "y"
) -> tuple[NDArray[np.uint8], NDArray[np.int64]]:
    """Return x uint8 [N, H, W, 3] and y [N] of an archive as pixels [N, 3, H, W] and labels [N].

    Args:
        path: the file, for the message.
        x: the pictures.
        y: the labels.
        num_classes: how many classes there are.
        what: the name of the labels, for the message.

    Raises:
        Mistake: they have another form.
    """
    if x.dtype != np.uint8 or x.ndim != 4 or x.shape[3] != 3:
        raise Mistake(f"{path}: its pictures are {x.dtype} {list(x.shape)}; they must be uint8 [N, H, W, 3]")
    if y.dtype.kind not in "iu" or y.shape != x.shape[:1] or not len(y) or y.min() < 0 or y.max() >= num_classes:
        raise Mistake(
            f"{path}: {what} must hold a number from 0 to {num_classes - 1} for each of the {len(x)} pictures"
        )
    return np.ascontiguousarray(x.transpose(0, 3, 1, 2)), y.astype(np.int64)


def parse_client_ids(name: str, column: NDArray[np.generic]) -> list[str]:
    """Return the client id of each example: the values of the column [N] as strings.

    Raises:
        Mistake: it has another shape, or a value is missing.

    >>> parse_client_ids("ward", np.array([3, 12]))
    ['3', '12']
    """
    if column.ndim != 1:
        raise Mistake(f"{name}: has shape {list(column.shape)}; give one client id for each example, [N]")
    if column.dtype.kind not in "biufUSM":
        raise Mistake(f"{name}: holds {column.dtype} values; a client id is text or a number")
    try:
        ids = [v.decode() if isinstance(v, bytes) else str(v) for v in column.tolist()]
    except UnicodeDecodeError as error:
        raise Mistake(f"{name}: holds bytes that are not text in UTF-8; give text or numbers") from error
    for row, client in enumerate(ids):
        if client.strip() in ("", "nan", "NaT"):
            raise Mistake(f"{name}: example {row} holds {toml_text(client)}; every example needs a client id")
    return ids


def parse_split(name: str, is_test: NDArray[np.generic]) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Return rows to train on and rows to test on, from a truth value (or 0 and 1) for each example [N].

    Raises:
        Mistake: it holds other values, or leaves nothing to train on or to test on.
    """
    if is_test.ndim != 1 or is_test.dtype.kind not in "biu" or not np.isin(is_test, [0, 1]).all():
        raise Mistake(f"{name}: must hold true or false for each example, once")
    rows = is_test.astype(bool)
    if rows.all() or not rows.any():
        raise Mistake(
            f"{name}: marks {rows.sum()} of {len(rows)} examples; some must be left to train and some to test on"
        )
    return np.flatnonzero(~rows), np.flatnonzero(rows)
