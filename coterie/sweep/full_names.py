"""The full name of a key that is written without its table, such as `lr` for `algorithm.lr`."""

from __future__ import annotations

import copy
from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path

from coterie.core.errors import Mistake
from coterie.core.registry import nearest
from coterie.experiment.check_values import full_name
from coterie.experiment.read_keys import read_keys
from coterie.experiment.settings import search_folders
from coterie.experiment.tables import CHOICES, CHOSEN, FIXED, TOP
from coterie.experiment.toml_file import Raw, read_toml
from coterie.sweep.axes import Axis


def complete_names(file: Path, axes: Sequence[Axis]) -> list[Axis]:
    """Return the axes with the full names of their keys.

    A name without a table is a key of the top level, or the key of that name in the one table that has it.

    Raises:
        Mistake: no table has such a key, or several have; a key is given twice; or the file cannot be read.
    """
    raw = read_toml(file)
    known = _list_keys(file, raw, axes) if any("." not in a.key and a.key not in TOP for a in axes) else {}
    found = [axis if "." in axis.key or axis.key in TOP else replace(axis, key=_find(axis, known)) for axis in axes]
    names = [axis.key for axis in found]
    twice = next((name for k, name in enumerate(names) if name in names[:k]), None)
    if twice is not None:
        raise Mistake(f"{twice}: is given twice; give all its values at once, {twice}=a,b")
    return found


def _list_keys(file: Path, raw: Raw, axes: Sequence[Axis]) -> dict[str, list[str]]:
    """Return, from each key's own name, its full names in the tables that have it."""
    folders = search_folders(file, raw)
    found: dict[str, list[str]] = {}
    for table in CHOSEN:
        for choice in _choices(raw, table, axes):
            for key in CHOSEN[table](choice, folders):
                found.setdefault(key, []).append(full_name(table, key))
    for table in FIXED:
        for key in read_keys(FIXED.places[table]):
            found.setdefault(key, []).append(full_name(table, key))
    return {key: list(dict.fromkeys(names)) for key, names in found.items()}


def _choices(raw: Raw, table: str, axes: Sequence[Axis]) -> Iterator[Raw]:
    """Yield a table as the file has it, and with each value of a choice that the sweep varies."""
    own = raw.get(table, {})
    own = own if isinstance(own, dict) else {}
    names = {full_name(table, choice): choice for choice in CHOICES.get(table, ("name",))}
    varied = [(names[axis.key], value) for axis in axes if axis.key in names for value in axis.values]
    for choice, value in varied:
        yield copy.deepcopy(own) | {choice: value}
    if not varied:
        yield own


def _find(axis: Axis, known: dict[str, list[str]]) -> str:
    names = known.get(axis.key, [])
    if len(names) == 1:
        return names[0]
    if names:
        raise Mistake(f"{axis.key}: several tables have this key; write {' or '.join(names)}")
    near = nearest(axis.key, [*known, *TOP])
    hint = f"did you mean {near}?" if near else "write it with its table, table.key"
    raise Mistake(f"{axis.key}: no table of this file has such a key; {hint}")
