"""Which examples make up each local step.

Legend: n examples, B batch size, K local steps.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor

from coterie.core import rng
from coterie.core.algorithm import Stream
from coterie.core.secret_draws import choose, join_purpose


def batch_size(stream: Stream, n: int) -> int:
    """Return the batch size B of a stream with n examples, at most n."""
    return n if stream.batch_size == "full" else min(stream.batch_size, n)


def num_steps(stream: Stream, n: int) -> int:
    """Return the number of steps K_i = E ceil(n / B), or the number that the stream fixes."""
    return stream.epochs * -(-n // batch_size(stream, n)) if stream.steps is None else stream.steps


def batches(stream: Stream, n: int, steps: int, *purpose: object) -> list[Tensor]:
    """Return the row numbers of `steps` successive batches, int64 [B] each.

    Each pass over the data has a new order, which is cut into batches. The last batch of a pass is short if B does not
    divide n. A full batch keeps the order of the data, since no gradient depends on it.
    """
    size = batch_size(stream, n)
    cut: list[Tensor] = []
    epoch = 0
    while len(cut) < steps:
        order = torch.arange(n) if size == n else torch.randperm(n, generator=rng.generator(*purpose, "order", epoch))
        cut.extend(torch.split(order, size))
        epoch += 1
    return cut[:steps]


def poisson_batches(stream: Stream, n: int, steps: int, secret: str, *purpose: object) -> list[Tensor]:
    """Return the row numbers of `steps` Poisson batches, int64 [any number] each; see `Stream`."""
    share = batch_size(stream, n) / n
    return [choose(n, share, join_purpose(secret, *purpose, "poisson", k)) for k in range(steps)]


def width_of_padding(stream: Stream, n: int) -> int:
    """Return to how many rows a compiled step's batches are padded; a longer one, which is rare, is compiled again.

    A Poisson batch lies above B by more than six standard deviations less than once in a million batches.
    """
    if stream.batch_size == "full" or not stream.poisson:
        return batch_size(stream, n)
    return stream.batch_size + 6 * math.isqrt(stream.batch_size) + 8  # the same for all clients
