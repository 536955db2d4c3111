"""What a process does with memory it has freed."""

from __future__ import annotations

import ctypes
import functools
import sys

M_TRIM_THRESHOLD, M_MMAP_THRESHOLD = -1, -3  # of <malloc.h>
LARGEST = 32 * 2**20
"""Bytes up to which glibc may be told to take a block from its heap."""


@functools.cache
def keep_freed_memory() -> bool:
    """Let the process keep what it frees, for the next step, instead of giving it back and asking again. True where the
    C library can be told so (glibc).

    By default glibc returns a block of some megabytes to the system at once, and every step's new weights and gradients
    then cost one page fault for each 4 KiB: a tenth of the time of a step of a network with 1.7 million parameters.
    """
    if not sys.platform.startswith("linux"):
        return False
    try:
        mallopt = ctypes.CDLL(None).mallopt
    except AttributeError:  # another C library
        return False
    return bool(mallopt(M_MMAP_THRESHOLD, LARGEST)) and bool(mallopt(M_TRIM_THRESHOLD, 2**30))
