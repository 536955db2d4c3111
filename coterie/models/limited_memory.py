"""Stop a model that does not fit into memory from its sizes, before its weights are allocated."""

from __future__ import annotations

from collections.abc import Sequence
from math import prod
from typing import Any

import torch
from torch import Tensor
from torch.multiprocessing.reductions import StorageWeakRef
from torch.utils._python_dispatch import TorchDispatchMode

from coterie.core.machine import memory_bytes

LARGE_BYTES = 2**20
"""Smaller tensors are not counted."""

_aten = torch.ops.aten
EMPTY = {_aten.empty.memory_format, _aten.zeros.default, _aten.ones.default, _aten.rand.default, _aten.randn.default}
"""The operations that allocate tensors of a given size, which is their first argument."""


class TooLarge(Exception):
    """The tensors that are made do not fit into memory together."""


class LimitedMemory(TorchDispatchMode):  # type: ignore[no-untyped-call]
    """Within this block, tensors that would not fit into the machine's memory are refused before they are allocated.

    Raises:
        TooLarge: they would not fit; the message says how much memory they would take, and how much there is.
    """

    def __init__(self) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.limit = memory_bytes()
        self.held: list[tuple[StorageWeakRef, int]] = []

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        """Run an operation, unless it would allocate too much."""
        kwargs = kwargs or {}
        size = _size_in_bytes(args[0], kwargs.get("dtype")) if func in EMPTY and args else 0
        if size < LARGE_BYTES:
            return func(*args, **kwargs)
        self.held = [(storage, held) for storage, held in self.held if not storage.expired()]  # type: ignore[no-untyped-call]
        together = size + sum(held for _, held in self.held)
        if together > self.limit:
            raise TooLarge(
                f"its weights would take {_gigabytes(together)} or more, and this machine has {_gigabytes(self.limit)}"
            )
        made: Tensor = func(*args, **kwargs)
        self.held.append((StorageWeakRef(made.untyped_storage()), size))  # type: ignore[no-untyped-call]
        return made


def _size_in_bytes(shape: Sequence[int], dtype: torch.dtype | None) -> int:
    return prod(shape) * (dtype or torch.get_default_dtype()).itemsize


def _gigabytes(size: int) -> str:
    return f"{size / 2**30:,.0f} GiB" if size >= 2**30 else f"{size / 2**20:,.0f} MiB"
