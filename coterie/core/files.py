"""Write files so that each is either the old one or the new one, never a part of one."""

from __future__ import annotations

import os
from pathlib import Path

_UNFINISHED = ".*.*[0-9].tmp"
"""Pattern of the names of files that are still being written."""


def write_atomic(path: Path, data: bytes) -> None:
    """Write `data` beside `path`, flush it to the disk, and rename it to `path`.

    Raises:
        OSError: the disk is full or the folder cannot be written; a file that was there is unchanged.
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


def remove_unfinished(folder: Path) -> None:
    """Remove the unfinished files of killed processes from a folder and from the folders in it.

    Nobody may be writing into them now.

    Raises:
        OSError: the folder cannot be written.
    """
    for file in (*folder.glob(_UNFINISHED), *folder.glob(f"*/{_UNFINISHED}")):
        file.unlink()
