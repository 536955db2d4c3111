"""Lock a run folder, so that only one run at a time writes there."""

from __future__ import annotations

import fcntl
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from coterie.core.errors import Mistake

LOCK_FILE = ".lock"
_held: set[int] = set()
"""The open files of the locks that this process holds."""


@contextmanager
def hold_lock(
    folder: Path, otherwise: str = "another run is writing there now; wait for it, or choose another folder with --out"
) -> Iterator[None]:
    """Lock an existing folder for the length of a block; refuse it if another process holds the lock.

    The system unlocks it however the process ends.

    Args:
        folder: to be locked.
        otherwise: what is said if another process holds the lock.

    Raises:
        Mistake: another process holds the lock.
    """
    # The file is never removed: a process that waits for a removed file would hold a lock that nobody else can see.
    handle = os.open(folder / LOCK_FILE, os.O_RDWR | os.O_CREAT, 0o644)
    _held.add(handle)
    try:
        try:
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            raise Mistake(f"{folder}: {otherwise}") from error
        yield
    finally:
        _held.discard(handle)
        os.close(handle)


def _close_in_copy() -> None:
    """Close the locks in a copy of the process that holds them, so that it alone does."""
    while _held:
        os.close(_held.pop())


os.register_at_fork(after_in_child=_close_in_copy)


def is_locked(folder: Path) -> bool:
    """Return whether a process holds the lock of a folder now."""
    try:
        handle = os.open(folder / LOCK_FILE, os.O_RDONLY)
    except OSError:
        return False
    try:
        fcntl.flock(handle, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except BlockingIOError:
        return True
    finally:
        os.close(handle)
    return False
