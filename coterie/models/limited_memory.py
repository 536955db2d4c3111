"""Stop a model that does not fit into memory from its sizes, before its weights are allocated."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from math import prod
from typing import Any, SupportsIndex

import torch
from torch import Tensor
from torch.multiprocessing.reductions import StorageWeakRef
from torch.overrides import TorchFunctionMode

from coterie.core.machine import memory_bytes

LARGE_BYTES = 2**20
"""Smaller tensors are not counted."""
COPIES = 4
"""What training holds of a model at the least: its weights, a client's, their gradient, and the update."""
ALLOCATING = (torch.empty, torch.zeros, torch.ones, torch.rand, torch.randn, torch.full)
"""The functions that allocate tensors of a given size, which comes first; layers call them."""


class TooLarge(Exception):
    """The tensors that are made are too large to be trained."""


class LimitedMemory(TorchFunctionMode):
    """Within this block, tensors that would be too large to be trained here are refused before they are allocated.

    Raises:
        TooLarge: they would not fit; the message says how much memory they would take, and how much there is.
    """

    def __init__(self) -> None:
        super().__init__()
        self.memory = memory_bytes()
        self.held: list[tuple[StorageWeakRef, int]] = []

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        """Run a function, unless it would allocate too much."""
        kwargs = kwargs or {}
        size = _size_in_bytes(args, kwargs) if func in ALLOCATING else 0
        if size < LARGE_BYTES:
            return func(*args, **kwargs)
        self.held = [(storage, held) for storage, held in self.held if not storage.expired()]  # type: ignore[no-untyped-call]
        together = size + sum(held for _, held in self.held)
        if COPIES * together > self.memory:
            raise TooLarge(
                f"its weights would take {_gigabytes(together)} or more and training {COPIES} times as much, but this "
                f"machine has {_gigabytes(self.memory)}"
            )
        made: Tensor = func(*args, **kwargs)
        self.held.append((StorageWeakRef(made.untyped_storage()), size))  # type: ignore[no-untyped-call]
        return made


def _size_in_bytes(args: tuple[Any, ...], kwargs: Mapping[str, Any]) -> int:
    """Return the bytes of the tensor that a call allocates; 0 where it is not on a device with memory."""
    if str(kwargs.get("device")) == "meta":
        return 0
    shape = kwargs.get("size", args[0] if args and isinstance(args[0], Iterable) else args)
    sizes = [int(size) for size in shape if isinstance(size, SupportsIndex)]
    return prod(sizes) * (kwargs.get("dtype") or torch.get_default_dtype()).itemsize


def _gigabytes(size: int) -> str:
    return f"{size / 2**30:,.0f} GiB" if size >= 2**30 else f"{size / 2**20:,.0f} MiB"
