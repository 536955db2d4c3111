"""Whether a new process may be a copy of this one (`os.fork`), so that both share memory until one of them writes.

A copy has everything that this process has loaded and built: PyTorch, the data sets, the experiment. But it has one
thread, and it shares the places at which files are read. So a process may be copied only where it has one thread, reads
from no file and has no connection. Otherwise a new process starts afresh, which gives the same result.
"""

from __future__ import annotations

import ctypes
import os
import stat
import sys
import threading
import time
import warnings
from collections.abc import Iterator
from pathlib import Path

import torch

THREADS = Path("/proc/self/task")
FILES = Path("/proc/self/fd")
SECONDS_TO_END = 0.2
"""How long threads that were told to end may take."""
PAUSE_HARD = 2  # omp_pause_hard in <omp.h>: give back everything, threads included


def are_copies_likely() -> bool:
    """Return whether nothing that lasts keeps this process from being copied: the system, a GPU, a second thread."""
    return sys.platform.startswith("linux") and not torch.cuda.is_available() and threading.active_count() == 1


def can_be_copied() -> bool:
    """Return whether a copy of this process lacks nothing and disturbs nothing. True on Linux alone.

    Threads of OpenMP and OpenBLAS that wait for work end here; their libraries start them again when there is some.
    """
    if not are_copies_likely():
        return False
    if any(map(_is_shared_place, _open_files())):
        return False
    for library in _openmp_libraries():
        library.omp_pause_resource_all(PAUSE_HARD)
    return _end_threads_by_copying() and _has_one_thread()


def _open_files() -> Iterator[int]:
    """Yield the open files of this process, standard input and outputs aside."""
    return (number for number in (int(each.name) for each in FILES.iterdir()) if number > 2)


def _is_shared_place(file: int) -> bool:
    """Return whether two processes would disturb each other in an open file: they read on from one place.

    An empty file, such as a lock, has one place only.
    """
    try:
        found = os.fstat(file)
        access = _access_of(file)
    except OSError:  # closed since it was listed
        return False
    return stat.S_ISSOCK(found.st_mode) or (stat.S_ISREG(found.st_mode) and found.st_size > 0 and access != os.O_WRONLY)


def _access_of(file: int) -> int:
    """Return O_RDONLY, O_WRONLY or O_RDWR."""
    lines = (Path("/proc/self/fdinfo") / str(file)).read_text().splitlines()
    flags = next(line.split()[1] for line in lines if line.startswith("flags:"))
    return int(flags, 8) & os.O_ACCMODE


def _openmp_libraries() -> list[ctypes.CDLL]:
    """Return the OpenMP libraries of this process that can end their threads. There may be several."""
    maps = Path("/proc/self/maps").read_text(errors="replace").splitlines()
    paths = {line.split(maxsplit=5)[-1] for line in maps if "omp" in line.rpartition("/")[-1]}
    libraries = [ctypes.CDLL(path) for path in sorted(paths) if ".so" in path and Path(path).is_file()]
    return [library for library in libraries if hasattr(library, "omp_pause_resource_all")]


def _end_threads_by_copying() -> bool:
    """Make a copy that ends at once, since OpenBLAS ends its threads before every copy. Return whether it was made."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)  # about threads, which are counted next
        try:
            copy = os.fork()
        except OSError:  # memory for a second process is not allowed
            return False
        if copy == 0:
            os._exit(0)
    os.waitpid(copy, 0)
    return True


def _has_one_thread() -> bool:
    deadline = time.monotonic() + SECONDS_TO_END
    while len(list(THREADS.iterdir())) > 1:
        if time.monotonic() > deadline:
            return False
        time.sleep(0.001)
    return True
