"""sweep.toml: what a sweep varies, so that it can be continued without saying it again."""

from __future__ import annotations

import tomllib
from collections.abc import Sequence
from pathlib import Path

import tomlkit

from coterie.core.errors import Mistake, reason
from coterie.report.sweep_folder import RUNS, SWEEP_FILE, is_sweep
from coterie.sweep.axes import Axis, parse_axis
from coterie.track.file_writing import write_file

_NOT_OURS = "is neither empty nor the folder of a sweep"


def write_grid(folder: Path, file: Path, axes: Sequence[Axis]) -> None:
    """Write sweep.toml.

    Raises:
        Mistake: it cannot be written.
    """
    document = {"file": str(file), "grid": [str(axis) for axis in axes]}
    text = "# What this sweep varies. `coterie sweep FILE --out DIR --resume` goes on with it.\n"
    write_file(folder / SWEEP_FILE, (text + tomlkit.dumps(document)).encode())


def read_grid(folder: Path) -> list[Axis]:
    """Return what the sweep in a folder varies.

    Raises:
        Mistake: the folder holds no sweep, or the file is damaged.
    """
    path = folder / SWEEP_FILE
    if not path.is_file():
        raise Mistake(f"{folder}: holds no sweep to continue; say what to vary, such as lr=0.1,0.2")
    try:
        grid = tomllib.loads(path.read_text(encoding="utf-8"))["grid"]
        return [parse_axis(argument) for argument in grid]
    except (ValueError, KeyError, TypeError, AttributeError, OSError) as error:
        raise Mistake(f"{path}: is damaged ({reason(error)}); say what to vary, such as lr=0.1,0.2") from error


def check_folder(folder: Path, resume: bool) -> None:
    """Refuse a folder that a sweep cannot use.

    Raises:
        Mistake: it holds a sweep, and `resume` is not wanted; or it holds something else.
    """
    if is_sweep(folder):
        if not resume:
            raise Mistake(
                f"{folder}: holds a sweep already; continue it with --resume, or choose another folder with --out"
            )
        return
    try:
        names = [entry.name for entry in folder.iterdir() if not entry.name.startswith(".")]
    except FileNotFoundError:
        return
    except OSError as error:
        raise Mistake(f"{folder}: cannot be used ({error.strerror}); choose another with --out") from error
    names = [name for name in names if not (resume and name == RUNS)]  # which an array job has made
    if names:
        raise Mistake(f"{folder}: {_NOT_OURS} (it holds {names[0]}); choose another with --out")


def check_same_keys(folder: Path, axes: Sequence[Axis]) -> None:
    """Refuse to continue a sweep with other keys, since its runs are named by them.

    Raises:
        Mistake: the sweep in the folder varies other keys.
    """
    before = [axis.key for axis in read_grid(folder) if axis.is_varied]
    now = [axis.key for axis in axes if axis.is_varied]
    if before != now:
        raise Mistake(
            f"{folder}: its sweep varies {', '.join(before)}, and not {', '.join(now) or 'anything'}; values may be "
            "added and left out, keys may not, so choose another folder with --out"
        )
