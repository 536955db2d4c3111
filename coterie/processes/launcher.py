"""What a launcher such as torchrun says of the processes that it started. Reading it imports no PyTorch."""

from __future__ import annotations

import os


def launcher_size() -> int | None:
    """Return how many processes a launcher such as torchrun has started for this run; None without a launcher.

    >>> launcher_size()
    """
    return int(os.environ["WORLD_SIZE"]) if {"RANK", "WORLD_SIZE"} <= os.environ.keys() else None


def launcher_rank() -> int:
    """Return this process's number among those that a launcher has started; 0 without a launcher.

    >>> launcher_rank()
    0
    """
    return 0 if launcher_size() is None else int(os.environ["RANK"])
