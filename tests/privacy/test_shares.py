"""Shamir's shares: t of them give the secret back, and t - 1 fit every secret."""

import random

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from coterie.core.errors import Mistake
from coterie.privacy.shares import PRIME, join_shares, split_secret


def is_probably_prime(n: int) -> bool:
    """Miller and Rabin's test with forty random bases: a composite number passes with probability 4^-40 at most."""
    odd, twos = n - 1, 0
    while odd % 2 == 0:
        odd, twos = odd // 2, twos + 1
    draw = random.Random(0)
    for _ in range(40):
        x = pow(draw.randrange(2, n - 1), odd, n)
        if x in (1, n - 1):
            continue
        for _ in range(twos - 1):
            x = x * x % n
            if x == n - 1:
                break
        else:
            return False
    return True


def test_the_modulus_is_the_smallest_prime_above_all_secrets():
    assert [n - 2**256 for n in range(2**256 + 1, PRIME + 1, 2) if is_probably_prime(n)] == [297]


@given(st.binary(min_size=32, max_size=32), st.data())
@settings(deadline=None, max_examples=60)
def test_any_needed_shares_give_the_secret_back(secret, data):
    places = data.draw(st.lists(st.integers(1, 10**6), min_size=1, max_size=12, unique=True))
    needed = data.draw(st.integers(1, len(places)))
    shares = split_secret(secret, places, needed)
    some = data.draw(st.permutations(places))[:needed]
    assert join_shares({place: shares[place] for place in some}) == secret


def test_one_share_less_fits_every_secret():
    """With t = 3, two shares and any third value at 0 lie on one polynomial of degree 2: nothing is excluded."""
    shares = split_secret(bytes(31) + b"\x07", [1, 2, 3], 3)
    for other in (0, 7, PRIME - 1):
        # The polynomial through (0, other) and the two shares has a value at 3, which is a share that fits.
        v1, v2 = (int.from_bytes(shares[x], "big") for x in (1, 2))
        v3 = (other - 3 * v1 + 3 * v2) % PRIME  # the third difference of a polynomial of degree 2 is 0
        found = {1: shares[1], 2: shares[2], 3: v3.to_bytes(33, "big")}
        if other < 2**256:
            assert int.from_bytes(join_shares(found), "big") == other


def test_shares_of_one_secret_differ_each_time_and_a_wrong_one_gives_another_secret():
    secret = bytes(range(32))
    first, second = split_secret(secret, [1, 2, 3], 2), split_secret(secret, [1, 2, 3], 2)
    assert first != second
    assert join_shares({1: first[1], 2: second[2]}) != secret


def test_places_must_be_different_and_enough():
    for places, needed, word in (([1, 1], 2, "places"), ([0, 1], 2, "places"), ([1, 2], 3, "needed")):
        with pytest.raises(Mistake, match=word):
            split_secret(bytes(32), places, needed)
