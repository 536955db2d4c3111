"""The examples that a client holds, as tensors, and row numbers that select among them.

Legend: n examples, B batch.
"""

from __future__ import annotations

import numbers
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol, runtime_checkable

import numpy as np
import torch
from torch import Tensor

from coterie.core.errors import Mistake


@dataclass(frozen=True)
class Examples:
    """The examples of one client or of a test set. They are immutable, and cheap to cut from a shared pool.

    `x` [m, ...] and `y` [m, ...] (None without labels) may be a pool that many clients share. Then `rows` [n] int64
    selects this client's rows, so a hundred clients of one data set cost one copy of it. Arrays of NumPy and frames of
    pandas become tensors, which share their memory where they can. `x` and `y` may lie on a GPU, from which batches are
    then taken; `rows` is moved to the host.

    Raises:
        Mistake: `x` and `y` differ in length, or are not tensors.
    """

    x: Tensor
    y: Tensor | None = None
    rows: Tensor | None = None

    def __post_init__(self) -> None:
        """Turn arrays into tensors; refuse other types, and labels that are more or fewer than the examples."""
        for name in ("x", "y", "rows"):
            value = getattr(self, name)
            if hasattr(value, "__array__") and not isinstance(value, Tensor):
                value = _tensor_of(name, value)
                object.__setattr__(self, name, value)
            if not isinstance(value, Tensor) and (name == "x" or value is not None):
                sentence = f"it is of type {type(value).__name__}; it must be a tensor, such as torch.as_tensor({name})"
                raise Mistake(sentence, key=name)
        if self.rows is not None:
            object.__setattr__(self, "rows", self.rows.cpu())
        if not self.x.dim() or (self.y is not None and not self.y.dim()):
            raise Mistake("x and y are single numbers; they must be tensors with a row for each example")
        if self.y is not None and len(self.y) != len(self.x):
            raise Mistake(f"x has {len(self.x)} examples but y has {len(self.y)}; give one label for each example")

    def __len__(self) -> int:
        return len(self.x) if self.rows is None else len(self.rows)

    def batch(self, index: Tensor) -> tuple[Tensor, Tensor | None]:
        """Return x [B, ...] and y [B, ...] of the examples numbered `index` [B], counted within these examples."""
        where = index if self.rows is None else self.rows[index]
        # `index_select` copies whole rows, and is five times as fast as indexing
        x = self.x.index_select(0, where.to(self.x.device))
        return x, None if self.y is None else self.y.index_select(0, where.to(self.y.device))

    def tensors(self) -> tuple[Tensor, Tensor | None]:
        """Return all of x [n, ...] and y [n, ...]; a copy if these examples are part of a larger pool."""
        if self.rows is None:
            return self.x, self.y
        return self.x[self.rows], self.labels()

    def labels(self) -> Tensor | None:
        """Return all of y [n, ...] on the host, without reading x."""
        if self.y is None:
            return None
        return (self.y if self.rows is None else self.y[self.rows]).cpu()

    def take(self, index: Tensor) -> Examples:
        """Return the examples numbered `index` [B]; they share this pool's memory."""
        return Examples(self.x, self.y, index if self.rows is None else self.rows[index])


def _tensor_of(name: str, value: Any) -> Tensor:
    """Return an array of another library as a tensor."""
    array = value.__array__()
    if array.dtype == object and all(isinstance(each, numbers.Real | np.bool_) for each in array.flat):
        array = array.astype(np.float64)  # a frame with columns of several types of number
    try:
        return torch.as_tensor(array if array.flags.writeable else array.copy())
    except (TypeError, ValueError) as error:
        raise Mistake(f"it holds {array.dtype}, not numbers of one type; encode it as numbers", key=name) from error


Clients = Mapping[str, Examples]
"""A federation's clients: a mapping from client id to its examples. It may be lazy: only the clients of a round's
cohort are looked up, so a mapping that makes its examples on demand serves a population of any size. It does so best if
it is `Counted`."""


@runtime_checkable
class Counted(Protocol):
    """Clients whose examples can be counted without being made.

    For other clients, an algorithm that weighs all of them, such as SCAFFOLD, makes everyone's examples before the
    first round.
    """

    def sizes(self, clients: Sequence[str]) -> list[int]:
        """Return how many examples each of these clients holds."""


def sizes(clients: Clients, ids: Sequence[str]) -> list[int]:
    """Return how many examples each of these clients holds."""
    return clients.sizes(ids) if isinstance(clients, Counted) else [len(clients[client]) for client in ids]


def pool_examples(parts: Iterable[Examples]) -> Examples:
    """Return all examples in one place [sum of n, ...], for baselines and tests; a federation could not do this.

    Parts that share one pool are joined by their row numbers, and the pool is not copied.

    Raises:
        Mistake: some parts are labelled and others are not, or there are no parts.
    """
    parts = list(parts)
    if not parts:
        raise Mistake("there are no examples to pool; give those of one client at least")
    first = parts[0]
    if all(p.x is first.x and p.y is first.y and p.rows is not None for p in parts):
        return Examples(first.x, first.y, torch.cat([p.rows for p in parts if p.rows is not None]))
    tensors = [p.tensors() for p in parts]
    ys = [y for _, y in tensors if y is not None]
    if len(ys) not in (0, len(parts)):
        raise Mistake(f"{len(parts) - len(ys)} of {len(parts)} sets of examples have no labels; label all or none")
    return Examples(torch.cat([x for x, _ in tensors]), torch.cat(ys) if ys else None)
