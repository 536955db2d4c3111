"""Writing so that a file is either the old one or the new one, never a piece of one."""

from __future__ import annotations

import os
from pathlib import Path

_HALF = ".*.*[0-9].tmp"
"""What files are called while they are written."""


def write_atomic(path: Path, data: bytes) -> None:
    """Put `data` at `path`: written beside it, flushed to the disk, and renamed into place.

    Raises:
        OSError: the disk is full or the folder cannot be written; the file that was there is untouched.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    beside = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    try:
        with beside.open("wb") as file:
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
        beside.replace(path)
    finally:
        beside.unlink(missing_ok=True)


def sweep(folder: Path) -> None:
    """Remove what processes that were killed have left half written in a folder into which nobody writes now, and in
    those inside it.

    Raises:
        OSError: the folder cannot be written.
    """
    for left in (*folder.glob(_HALF), *folder.glob(f"*/{_HALF}")):
        left.unlink()
