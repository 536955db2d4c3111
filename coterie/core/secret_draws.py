"""Draws that nobody can repeat without a secret: which examples make a batch, and the noise that hides them.

`coterie.core.rng` draws from the rng seed, which stands in the configuration of a run. Whoever knows it could take
such noise away again, so what a guarantee of privacy rests on is drawn from a secret instead. The same secret gives the
same numbers, so a stopped run continues with the draws that it would have had.

The bits are those of SHAKE-256 of the secret and the purpose of the draw, which nobody can tell from random ones
without the secret. Numbers are float64.
"""

from __future__ import annotations

import hashlib

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor


def normal(n: int, secret: str, *purpose: object) -> Tensor:
    """Return n independent standard normal numbers, float64 [n], by the method of Box and Muller (1958)."""
    half = -(-n // 2)
    u = _uniform(2 * half, secret, *purpose)
    length, angle = np.sqrt(-2 * np.log(u[:half])), 2 * np.pi * u[half:]
    return torch.from_numpy(np.concatenate([length * np.cos(angle), length * np.sin(angle)])[:n])


def choose(n: int, probability: float, secret: str, *purpose: object) -> Tensor:
    """Return which of n things are chosen, each by itself with this probability: int64 [m], in ascending order."""
    return torch.from_numpy(np.flatnonzero(_uniform(n, secret, *purpose) < probability).astype(np.int64))


def _uniform(n: int, secret: str, *purpose: object) -> NDArray[np.float64]:
    """Return n independent numbers in (0, 1), odd multiples of 2^-54."""
    words = "\x1f".join(map(str, (secret, *purpose)))
    drawn = np.frombuffer(hashlib.shake_256(words.encode()).digest(8 * n), dtype="<u8")
    return ((drawn >> np.uint64(11)).astype(np.float64) + 0.5) * 2.0**-53
