"""The error of a process whose run has lost another. It imports no PyTorch, so that a command can wait for it early."""

from __future__ import annotations


class Lost(RuntimeError):
    """A process of the run has ended, so the others cannot go on."""
