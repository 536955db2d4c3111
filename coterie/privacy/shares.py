"""Shares of a secret: any t of them give it back, and fewer say nothing about it.

The secret is the value at 0 of a random polynomial of degree t - 1 over the numbers modulo a prime; the share of x is
its value there. t values determine the polynomial, and for t - 1 of them every secret fits one polynomial. Shamir, "How
to share a secret", 1979.

We wrote it ourselves: `cryptography` has no such thing, and PyCryptodome's takes secrets of 16 bytes alone, while the
keys here have 32.
"""

from __future__ import annotations

import functools
import secrets
from collections.abc import Mapping, Sequence

from coterie.core.errors import require

PRIME = 2**256 + 297
"""The smallest prime above all secrets of 32 bytes."""
SECRET_BYTES, SHARE_BYTES = 32, 33


def split_secret(secret: bytes, places: Sequence[int], needed: int) -> dict[int, bytes]:
    """Return place -> the share of a secret of 32 bytes, 33 bytes each.

    Args:
        secret: 32 bytes.
        places: whole numbers from 1, no two alike.
        needed: t, how many shares give the secret back.

    Raises:
        Mistake: there are fewer places than needed, two are alike, or one is below 1.
    """
    require("needed", needed, 1 <= needed <= len(places), f"from 1 to {len(places)}, the number of shares")
    require("places", list(places), len(set(places)) == len(places) and min(places) >= 1, "different numbers from 1")
    coefficients = [int.from_bytes(secret, "big"), *(secrets.randbelow(PRIME) for _ in range(needed - 1))]
    return {place: _value(coefficients, place).to_bytes(SHARE_BYTES, "big") for place in places}


def _value(coefficients: Sequence[int], x: int) -> int:
    """Return the value of a polynomial at x, modulo the prime."""
    value = 0
    for coefficient in reversed(coefficients):
        value = (value * x + coefficient) % PRIME
    return value


def join_shares(shares: Mapping[int, bytes]) -> bytes:
    """Return the secret of exactly as many shares, by place, as it needs.

    Raises:
        ValueError: the shares are not of one secret of 32 bytes.
    """
    places = tuple(sorted(shares))
    secret = sum(w * int.from_bytes(shares[x], "big") for x, w in zip(places, _weights_at_0(places), strict=True))
    try:
        return (secret % PRIME).to_bytes(SECRET_BYTES, "big")
    except OverflowError as error:
        raise ValueError("the shares are not of one secret") from error


@functools.lru_cache(256)
def _weights_at_0(places: tuple[int, ...]) -> tuple[int, ...]:
    """Return Lagrange's weights: the value at 0 is the sum of weights times the values at these places."""
    weights = []
    for x in places:
        above, below = 1, 1
        for other in places:
            if other != x:
                above, below = above * other % PRIME, below * (other - x) % PRIME
        weights.append(above * pow(below, -1, PRIME) % PRIME)
    return tuple(weights)
