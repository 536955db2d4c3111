"""Gather a client's batches for several steps at a time, with one look-up, one conversion and one transfer.

Legend: K steps, B batch; b rows of one step.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import torch
from torch import Tensor

from coterie.core.engine import Engine, as_input
from coterie.core.examples import Examples
from coterie.core.task import Batch

BLOCK_BYTES = 2**20
"""About how many bytes are gathered at a time: few enough that they are still in the cache when a step uses them."""


def gather_batches(
    examples: Examples, rows: Sequence[Tensor], keys: Tensor, engine: Engine, width: int | None = None
) -> Iterator[Batch]:
    """Yield the batch of each step, on the engine's device and in its type.

    Args:
        examples: the client's.
        rows: the row numbers [b] of each step.
        keys: int64 [K], on the engine's device.
        engine: gives device and type.
        width: B >= b: each batch is padded to [B] with copies of its first example, and masked. None: no padding.
    """
    widest = max(map(len, rows), default=1) if width is None else width
    steps = steps_per_block(examples, widest)
    for k in range(0, len(rows), steps):
        yield from _gather_block(examples, rows[k : k + steps], keys[k : k + steps], engine, width)


def steps_per_block(examples: Examples, rows: int) -> int:
    """Return how many steps with this number of rows fill a block."""
    return max(1, BLOCK_BYTES // max(1, rows * examples.x.nbytes // max(1, len(examples.x))))


def _gather_block(
    examples: Examples, rows: Sequence[Tensor], keys: Tensor, engine: Engine, width: int | None
) -> Iterator[Batch]:
    """Yield the batches of one block of steps; see `gather_batches`."""
    absent: Sequence[Tensor | None] = [None] * len(rows)
    masks = absent
    if width is None and not all(map(len, rows)):  # an empty Poisson batch: one example that is not real
        nothing = torch.zeros(1, dtype=torch.bool, device=engine.device)
        masks = [None if len(own) else nothing for own in rows]
        rows = [own if len(own) else torch.zeros(1, dtype=torch.int64) for own in rows]
    if width is not None:
        lengths = torch.tensor([len(own) for own in rows])
        masks = (torch.arange(width) < lengths[:, None]).to(engine.device).unbind()
        rows = [own if len(own) == width else _fill_up(own, width) for own in rows]
    sizes, every = [len(own) for own in rows], torch.cat(list(rows))
    x, y = examples.batch(every)
    labels = absent if y is None else torch.split(as_input(y, engine), sizes)
    numbers = torch.split(every.to(engine.device), sizes)
    yield from map(Batch, torch.split(as_input(x, engine), sizes), labels, numbers, masks, keys.unbind())


def _fill_up(rows: Tensor, width: int) -> Tensor:
    """Return row numbers [b] filled up to [width] with the first of them, or with 0 where there is none."""
    filler = rows[:1] if len(rows) else torch.zeros(1, dtype=torch.int64)
    return torch.cat([rows, filler.expand(width - len(rows))])
