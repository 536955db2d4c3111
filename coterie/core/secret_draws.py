"""Draws that nobody can repeat without a secret: which examples make a batch, and the noise that hides them.

`coterie.core.rng` draws from the rng seed, which stands in the configuration of a run. Whoever knows it could take
such noise away again, so what a guarantee of privacy rests on is drawn from a secret instead. The same secret gives the
same numbers, so a stopped run continues with the draws that it would have had.

The bits are those of SHAKE-256 of the secret and the purpose of the draw, which nobody can tell from random ones
without the secret, and as many as are needed. Generators of PyTorch and NumPy are faster, and all of their draws can be
found from some of them. Numbers are float64; the largest possible normal one is 8.6.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from math import prod

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

BLOCK = 2**20
"""Normal numbers that are made at a time."""


def gaussian(key: str, shape: Sequence[int]) -> Tensor:
    """Return independent standard normal numbers of a shape, float64 on the CPU.

    The method is that of Box and Muller (1958).

    Args:
        key: a secret, and what the numbers are for; see `join_purpose`.
        shape: of the result.
    """
    n = prod(shape)
    blocks = [_block(join_purpose(key, k), min(BLOCK, n - k * BLOCK)) for k in range(-(-n // BLOCK))]
    return torch.from_numpy(np.concatenate(blocks or [np.zeros(0)])).reshape(tuple(shape))


def choose(n: int, probability: float, key: str) -> Tensor:
    """Return which of n things are chosen, each by itself with this probability: int64 [m], in ascending order."""
    drawn = (_whole(n, key).astype(np.float64) + 0.5) * 2.0**-53
    return torch.from_numpy(np.flatnonzero(drawn < probability).astype(np.int64))


def join_purpose(secret: str, *purpose: object) -> str:
    """Return the key of a secret and of what is drawn."""
    return "\x1f".join(map(str, (secret, *purpose)))


def _block(key: str, n: int) -> NDArray[np.float64]:
    """Return n normal numbers [n]; two come from each pair of uniform ones."""
    pairs = (n + 1) // 2
    whole = _whole(2 * pairs, key).astype(np.float64)
    u, v = whole[:pairs], whole[pairs:]
    radius, angle = np.sqrt(-2 * np.log((u + 1) * 2.0**-53)), 2 * np.pi * v * 2.0**-53
    return np.concatenate([radius * np.cos(angle), radius * np.sin(angle)])[:n]


def _whole(n: int, key: str) -> NDArray[np.uint64]:
    """Return n independent whole numbers from 0 to 2^53 - 1."""
    return np.frombuffer(hashlib.shake_256(key.encode()).digest(8 * n), dtype="<u8") >> np.uint64(11)
