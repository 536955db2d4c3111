"""Real numbers as whole numbers modulo 2^b, whose sum over clients is exact and cannot overflow.

    q = round(x * 2^f)                    at a client, for |x| <= limit
    Q = sum of the q modulo 2^b           in any order, with any masks that cancel
    X = Q * 2^-f                          the sum of the x, each rounded to the grid of steps 2^-f

With M = ceil(limit * 2^f), every |q| <= M. f is the largest whole number with n M <= 2^(b-1) - 1, so the sum of n
numbers lies between -2^(b-1) and 2^(b-1), and its residue says which one it is. Rounding to the nearest moves each x by
half a step at most, and the sum by n / 2 steps.

Residues are held as uint64 and added with the wrap-around of uint64, which NumPy promises. Since 2^b divides 2^64, the
b lowest bits of a sum are those of the sum modulo 2^b; only they travel.

Legend: n clients, d numbers, b bits of the modulus.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TypeAlias

import numpy as np
import numpy.typing as npt

from coterie.core.errors import Mistake, require

Residues: TypeAlias = npt.NDArray[np.uint64]
"""Whole numbers modulo 2^b, of which the b lowest bits count, [d]."""

MAX_EXPONENT = 1000
"""Of a power of two that float64 holds with room to spare."""


class OutOfRange(ValueError):
    """Numbers that cannot be summed: the text says why, in words that follow "the update"."""


@dataclass(frozen=True)
class FixedPoint:
    """How real numbers become residues.

    Attributes:
        clients: n, the most clients whose numbers are added.
        bits: b, a multiple of 8 from 16 to 64: the bytes of a number on its way are b / 8.
        limit: the largest absolute value of a number.

    Raises:
        Mistake: an argument is out of its range, or so few bits leave no precision.
    """

    clients: int
    bits: int = 40
    limit: float = 1024.0

    def __post_init__(self) -> None:
        require("bits", self.bits, self.bits in range(16, 65, 8), "16, 24, 32, 40, 48, 56 or 64")
        require("limit", self.limit, 0 < self.limit < 2.0**100, "a number above 0, and no larger than 2^100")
        require("clients", self.clients, self.clients >= 1, "1 or more")
        if self.step > self.limit / 64:
            raise Mistake(
                f"{self.bits} bits leave steps of {self.step:g} for numbers up to {self.limit:g} of {self.clients} "
                "clients; give more `bits`, or a lower `limit`"
            )

    @property
    def exponent(self) -> int:
        """f: a number is a multiple of 2^-f."""
        largest = ((1 << (self.bits - 1)) - 1) // self.clients  # M may not exceed it
        f = 0 if largest == 0 else math.floor(math.log2(largest / self.limit)) + 1
        while f > -MAX_EXPONENT and _round_up(self.limit, f) > largest:
            f -= 1
        return f

    @property
    def step(self) -> float:
        """2^-f, the distance of two neighbouring numbers. A number is rounded by half of it at most."""
        return 2.0**-self.exponent

    @property
    def modulus(self) -> float:
        """2^b 2^-f: numbers that differ by it have one residue."""
        return math.ldexp(self.step, self.bits)

    @property
    def bytes(self) -> int:
        """The bytes of a number on its way."""
        return self.bits // 8

    def encode(self, numbers: npt.NDArray[np.float64]) -> Residues:
        """Return numbers [d] as residues [d].

        Raises:
            OutOfRange: a number is not finite, or larger than `limit`.
        """
        if not np.isfinite(numbers).all():
            raise OutOfRange("holds numbers that are not finite")
        largest = float(np.abs(numbers).max(initial=0.0))
        if largest > self.limit:
            raise OutOfRange(f"holds the number {largest:g}, and a secure sum takes numbers up to {self.limit:g}")
        # Times a power of two is exact, and so are whole numbers below 2^63 in int64.
        return np.rint(np.ldexp(numbers, self.exponent)).astype(np.int64).view(np.uint64)

    def decode(self, residues: Residues) -> npt.NDArray[np.float64]:
        """Return the numbers [d] whose residues these are: the sum of all that was added."""
        unused = np.uint64(64 - self.bits)
        signed = np.left_shift(residues, unused).view(np.int64)
        return np.ldexp(np.right_shift(signed, np.int64(unused)).astype(np.float64), -self.exponent)

    def pack(self, residues: Residues) -> npt.NDArray[np.uint8]:
        """Return residues [d] as the bytes that travel, [d, b / 8], the lowest first."""
        return np.ascontiguousarray(residues.astype("<u8").view(np.uint8).reshape(-1, 8)[:, : self.bytes])

    def unpack(self, packed: npt.NDArray[np.uint8]) -> Residues:
        """Return the residues [d] of packed ones [d, b / 8]."""
        padded = np.zeros((len(packed), 8), np.uint8)
        padded[:, : self.bytes] = packed
        return padded.reshape(-1).view("<u8").astype(np.uint64)


def _round_up(limit: float, exponent: int) -> int:
    """Return ceil(limit * 2^exponent), exactly."""
    numerator, denominator = limit.as_integer_ratio() if isinstance(limit, float) else (limit, 1)
    if exponent >= 0:
        numerator <<= exponent
    else:
        denominator <<= -exponent
    return -(-numerator // denominator)
