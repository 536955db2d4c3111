"""Paths of files that users name: what is to be read must be a file, and nothing that never ends."""

from __future__ import annotations

from pathlib import Path

from coterie.core.errors import Mistake


def require_file(path: Path, key: str = "path") -> None:
    """Refuse a path unless a regular file is there; a pipe or a device could be read without an end.

    Args:
        path: where it should be; links are followed.
        key: the argument that names it.

    Raises:
        Mistake: there is nothing, or something else.
    """
    if not path.exists():
        raise Mistake("there is no such file", key=key, value=path)
    if not path.is_file():
        kind = "a folder" if path.is_dir() else "a pipe, a socket or a device"
        raise Mistake(f"it is {kind} and cannot be read; name a file", key=key, value=path)
