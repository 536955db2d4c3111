"""End a process when the one that started it ends, in whatever way. It imports no PyTorch, so it acts soon."""

from __future__ import annotations

import multiprocessing
import os
import threading
from multiprocessing.connection import wait


def watch_parent() -> None:
    """End this process at once where the one that started it has ended, and from now on as soon as it does."""
    parent = multiprocessing.parent_process()
    assert parent is not None, "this process was started by multiprocessing"
    if wait([parent.sentinel], 0):
        os._exit(1)
    threading.Thread(target=_end_with, args=(parent.sentinel,), daemon=True).start()


def _end_with(sentinel: int) -> None:
    wait([sentinel])
    os._exit(1)
