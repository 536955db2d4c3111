"""The threads of one process: how many compute, and how they wait for one another.

PyTorch's threads meet after every operation. By default a thread that waits keeps its core busy, for milliseconds.
Where another program needs that core, the thread that is waited for does not get it, and steps take many times as long.
"""

from __future__ import annotations

import os
import sys
import time
from collections.abc import Iterator, MutableMapping
from contextlib import contextmanager
from pathlib import Path

SPIN_COUNT = "5000"
"""For how many turns a waiting thread keeps its core before it sleeps. That bridges most of the time between two
operations: with 1,000 turns a CNN took three times as long on a quiet machine, and with 30,000 six times as long beside
a busy program. GNU's default is 300,000 turns."""

_HOW_THREADS_WAIT = ("OMP_WAIT_POLICY", "GOMP_SPINCOUNT", "KMP_BLOCKTIME")
"""The variables that tell GNU's and LLVM's OpenMP how to wait. They are read once, when PyTorch is loaded."""

_HOW_MANY_THREADS = ("OMP_NUM_THREADS", "MKL_NUM_THREADS")

MIN_SECONDS_WATCHED = 2.0
"""How long other programs are watched before anything is said of them."""


def let_waiting_threads_sleep(environment: MutableMapping[str, str] = os.environ) -> None:
    """Let threads that wait sleep soon, in this process and in those that it starts.

    It does nothing where PyTorch is loaded already, which is too late, or where the environment says how to wait.
    """
    if "torch" not in sys.modules and not any(name in environment for name in _HOW_THREADS_WAIT):
        environment["GOMP_SPINCOUNT"] = SPIN_COUNT
        environment["KMP_BLOCKTIME"] = "0"


def threads_by_default() -> int:
    """Return how many threads PyTorch computes with in this process unless it is told otherwise."""
    import torch

    return torch.get_num_threads()


def are_threads_chosen() -> bool:
    """Return whether the user's environment says how many threads there are."""
    return any(os.environ.get(name) for name in _HOW_MANY_THREADS)


@contextmanager
def compute_with(threads: int) -> Iterator[None]:
    """Compute with this many threads for the length of the block."""
    import torch

    before = torch.get_num_threads()
    torch.set_num_threads(threads)
    try:
        yield
    finally:
        torch.set_num_threads(before)


class SharedMachineWatch:
    """Looks at the cores of this process; complains once if other programs take those that its threads wait on.

    Only Linux says what all programs take. There is nothing to watch where one thread computes, or where waiting
    threads sleep.

    Args:
        stat: the kernel's count of each core's time.
    """

    def __init__(self, stat: Path = Path("/proc/stat")) -> None:
        self._stat, self._before = stat, (0.0, 0.0, 0.0)
        self._watches = threads_by_default() > 1 and not any(name in os.environ for name in _HOW_THREADS_WAIT)
        self._watches = self._watches and self._look()

    def complaint(self) -> str | None:
        """Return what the user should know, once there is something; None otherwise."""
        if not self._watches or time.perf_counter() - self._before[0] < MIN_SECONDS_WATCHED:
            return None
        began, busy, own = self._before
        self._watches = self._look()
        seconds = self._before[0] - began
        others = (self._before[1] - busy - (self._before[2] - own)) / seconds
        threads, cores = threads_by_default(), len(_cores())
        if not self._watches or threads <= cores - others + 0.5:
            return None
        self._watches = False
        return (
            f"other programs take {others:.1f} of the {cores} cores that this process may use, and PyTorch's {threads} "
            "threads wait for one another by keeping their cores busy, which can make everything many times slower: "
            f"set OMP_NUM_THREADS=1, or GOMP_SPINCOUNT={SPIN_COUNT}, before Python starts"
        )

    def _look(self) -> bool:
        """Note the time, the seconds that all programs have used of these cores, and those of this process."""
        try:
            lines = [line.split() for line in self._stat.read_text().splitlines()]
        except OSError:  # not Linux
            return False
        here = {f"cpu{core}" for core in _cores()}
        ticks = [sum(map(int, line[1:4] + line[6:9])) for line in lines if line and line[0] in here]
        self._before = time.perf_counter(), sum(ticks) / os.sysconf("SC_CLK_TCK"), time.process_time()
        return len(ticks) == len(here)


def _cores() -> set[int]:
    """Return the cores that this process may use."""
    return os.sched_getaffinity(0) if hasattr(os, "sched_getaffinity") else set(range(os.cpu_count() or 1))
