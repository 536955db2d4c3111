"""A client's batches, gathered several steps at a time: one look-up, one conversion and one transfer serve them all.

Legend: K steps, B batch; b rows of one step.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import torch
from torch import Tensor

from coterie.core.engine import Engine, as_input
from coterie.core.examples import Examples
from coterie.core.task import Batch

BLOCK = 2**20
"""Bytes that are gathered at a time, about: small enough to be in a cache still when a step comes to them."""


def gathered(
    examples: Examples, rows: Sequence[Tensor], keys: Tensor, engine: Engine, width: int | None = None
) -> Iterator[Batch]:
    """For each step the examples in its `rows` [b] as a batch, on the engine's device and in its type.

    With a `width` B >= b each batch is padded to [B] with copies of its first example, and masked.

    Args:
        rows: of each step.
        keys: int64 [K], on the engine's device.
    """
    widest = max(map(len, rows), default=1) if width is None else width
    steps = steps_at_once(examples, widest)
    for k in range(0, len(rows), steps):
        yield from _block(examples, rows[k : k + steps], keys[k : k + steps], engine, width)


def steps_at_once(examples: Examples, rows: int) -> int:
    """How many steps of so many rows fill a block."""
    return max(1, BLOCK // max(1, rows * examples.x.nbytes // max(1, len(examples.x))))


def _block(
    examples: Examples, rows: Sequence[Tensor], keys: Tensor, engine: Engine, width: int | None
) -> Iterator[Batch]:
    nothing: Sequence[Tensor | None] = [None] * len(rows)
    masks = nothing
    if width is not None:
        lengths = torch.tensor([len(own) for own in rows])
        masks = (torch.arange(width) < lengths[:, None]).to(engine.device).unbind()
        rows = [own if len(own) == width else torch.cat([own, own[:1].expand(width - len(own))]) for own in rows]
    sizes, every = [len(own) for own in rows], torch.cat(list(rows))
    x, y = examples.batch(every)
    labels = nothing if y is None else torch.split(as_input(y, engine), sizes)
    numbers = torch.split(every.to(engine.device), sizes)
    yield from map(Batch, torch.split(as_input(x, engine), sizes), labels, numbers, masks, keys.unbind())
