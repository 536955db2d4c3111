"""Randomness that depends on what it is for, never on when it is drawn.

Every draw is a function of (rng seed, round, client, purpose, ...). So the order of clients, the engine, the chunk and
the machine change nothing, and a run that was stopped continues with the same draws.

There are two kinds of draws. On the host, a generator is made for one purpose (`generator`, `python_generator`). On the
device, a stateless hash of a key and a position (`uniform`) gives the same numbers in a plain loop, under
`torch.func.vmap` and in a compiled step.
"""

from __future__ import annotations

import hashlib
import random
from collections.abc import Iterator, Sequence
from math import prod
from typing import TypeVar

import torch
from torch import Tensor

_MASK = 0xFFFFFFFF
# Two odd multipliers of a 32-bit finaliser in the manner of MurmurHash3, written as signed numbers below 2^31, so that
# a product with a 32-bit value never leaves int64 (torch does not promise what overflow gives).
_M1 = 0x7FEB352D
_M2 = 0x846CA68B - (1 << 32)


def number(*purpose: object) -> int:
    """Return a 63-bit number that depends on `purpose` alone, on any machine and in any version of Python."""
    words = "\x1f".join(str(p) for p in purpose)
    return int.from_bytes(hashlib.blake2b(words.encode(), digest_size=8).digest(), "big") >> 1


def generator(*purpose: object) -> torch.Generator:
    """Return a torch generator on the host, seeded by `purpose` alone, for draws such as an order of examples."""
    return torch.Generator().manual_seed(number(*purpose))


def python_generator(*purpose: object) -> random.Random:
    """Return a generator of the standard library, seeded by `purpose` alone, for draws of single numbers."""
    return random.Random(number(*purpose))


def key(*purpose: object) -> Tensor:
    """Return a key that depends on `purpose` alone, for `uniform` and `fold`: int64, shape []."""
    return torch.tensor(number(*purpose) & _MASK, dtype=torch.int64)


H = TypeVar("H", int, Tensor)


def _mix(h: H) -> H:
    """Hash 32-bit values one to one; every input bit changes about half of the output bits."""
    h = h ^ (h >> 16)
    h = (h * _M1) & _MASK
    h = h ^ (h >> 15)
    h = (h * _M2) & _MASK
    return h ^ (h >> 16)


def fold(key: Tensor, position: int | Tensor) -> Tensor:
    """Return a new key (int64 []) from a key and a position, such as a step or a layer."""
    return _mix(_mix((key + 0x9E3779B9) & _MASK) ^ (position & _MASK))


def keys(n: int, *purpose: object) -> Tensor:
    """Return fold(key(*purpose), k) for k = 0 ... n - 1, int64 [n], in half as many operations.

    >>> bool((keys(3, "a") == fold(key("a"), torch.arange(3))).all())
    True
    """
    return _mix(torch.arange(n) ^ _mix((number(*purpose) + 0x9E3779B9) & _MASK))


def uniform(key: Tensor, shape: Sequence[int]) -> Tensor:
    """Return numbers in [0, 1) of `shape`, float32 (multiples of 2^-24).

    Entry i is a hash of the key and i alone.
    """
    return (bits(key, shape) >> 8).to(torch.float32) * 2.0**-24


def bits(key: Tensor, shape: Sequence[int]) -> Tensor:
    """Return 32 random bits in each int64 entry of `shape`."""
    position = torch.arange(prod(shape), device=key.device)
    return _mix(_mix(position) ^ _mix(key)).reshape(tuple(shape))


def shuffle(n: int, source: random.Random) -> Iterator[int]:
    """Yield 0 ... n - 1 in random order; the first m numbers cost O(m), however large n is.

    This is the shuffle of Fisher and Yates on an array that holds only the entries that have changed.

    >>> sorted(shuffle(5, python_generator(0, "example")))
    [0, 1, 2, 3, 4]
    """
    moved: dict[int, int] = {}
    for i in range(n):
        j = source.randrange(i, n)
        here = moved.pop(i, i)
        if j == i:
            yield here
        else:
            yield moved.get(j, j)
            moved[j] = here
