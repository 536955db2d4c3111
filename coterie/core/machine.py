"""How much memory this process may use."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path, PurePosixPath

import torch


def memory_bytes() -> int:
    """Return the bytes of memory of the machine, of its container or job, or of its GPU, whichever has the fewest."""
    host = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") if hasattr(os, "sysconf") else 2**33
    host = min([host, *memory_limits()])
    return min(host, torch.cuda.get_device_properties(0).total_memory) if torch.cuda.is_available() else host


def memory_limits(root: Path = Path("/")) -> Iterator[int]:
    """Yield the memory limits, in bytes, of this process's control groups: a container's, a Slurm job's."""
    try:
        groups = (root / "proc/self/cgroup").read_text().splitlines()
    except OSError:  # not Linux
        return
    for group in groups:
        _, controllers, path = group.split(":", 2)
        if controllers and "memory" not in controllers.split(","):
            continue
        base, name = ("memory", "memory.limit_in_bytes") if controllers else (".", "memory.max")  # version 1, or 2
        for part in (PurePosixPath(path), *PurePosixPath(path).parents):
            with suppress(OSError, ValueError):  # this group has no limit
                yield int((root / "sys/fs/cgroup" / base / part.relative_to("/") / name).read_text())
