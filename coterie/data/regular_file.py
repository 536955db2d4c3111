"""Paths of files that users name: what is read must be a regular file, and nothing that never ends."""

from __future__ import annotations

from pathlib import Path

from coterie.core.errors import Mistake
from coterie.data.origins import note_files

_MADE_BY_THE_KERNEL = ("/proc", "/sys")


def require_file(path: Path, key: str = "path") -> None:
    """Refuse a path unless a regular file is there; a pipe or a device could be read without an end.

    The file becomes one of the data's origins.

    Args:
        path: where it should be; links are followed.
        key: the argument that names it.

    Raises:
        Mistake: there is nothing, or something else.
    """
    if not path.exists():
        raise Mistake("there is no such file", key=key, value=path)
    if not is_regular(path):
        kind = "a folder" if path.is_dir() else "a pipe, a socket or a device"
        raise Mistake(f"it is {kind} and cannot be read; name a file", key=key, value=path)
    note_files([path])


def is_regular(path: Path) -> bool:
    """Return whether a path, or what it links to, is a file on a disk, and none that the kernel makes up."""
    return path.is_file() and not is_made_by_the_kernel(path)


def is_made_by_the_kernel(path: Path) -> bool:
    """Return whether a file or folder, or what it links to, lies in /proc or /sys, whose files may never end."""
    real = path.resolve()
    return any(real.is_relative_to(folder) for folder in _MADE_BY_THE_KERNEL)
