"""Fixed point: the sum of clients' numbers is exact on the grid, cannot overflow, and is near the real sum."""

from fractions import Fraction

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from coterie.core.errors import Mistake
from coterie.privacy.fixed_point import FixedPoint, OutOfRange

BITS = st.sampled_from([24, 32, 40, 48, 56, 64])


def test_the_exponent_is_the_largest_that_cannot_overflow():
    """By hand: b = 32, n = 100, limit 8. 2^31 - 1 = 2147483647; over 100 it is 21474836; over 8, 2684354 = 2^21.36.

    So f = 21: M = 8 * 2^21 = 2^24 and 100 M = 1677721600 <= 2147483647, while f = 22 gives twice as much.
    """
    assert FixedPoint(100, 32, 8.0).exponent == 21
    assert FixedPoint(128, 40, 1024.0).exponent == 21  # n M = 2^7 2^10 2^22 = 2^39 would be one too many
    assert FixedPoint(127, 40, 1024.0).exponent == 22


@given(st.integers(1, 10**6), BITS, st.floats(1e-6, 1e6))
@settings(deadline=None)
def test_the_bound_holds_and_is_tight(clients, bits, limit):
    """n M < 2^(b-1) for this f, and not for f + 1, in exact fractions."""
    try:
        form = FixedPoint(clients, bits, limit)
    except Mistake:  # too few bits for so many clients
        return

    def fits(f):
        return clients * -(-Fraction(limit) * Fraction(2) ** f // 1) < 2 ** (bits - 1)

    assert fits(form.exponent)
    assert not fits(form.exponent + 1)


@given(st.integers(1, 300), BITS, st.integers(0, 2**32))
@settings(deadline=None, max_examples=60)
def test_sums_at_the_limit_are_near_the_real_ones(clients, bits, seed):
    """|sum - real sum| <= n step / 2, also where every number is at the limit; 2^-52 is float64's own rounding."""
    form = FixedPoint(clients, bits, 5.0)
    draw = np.random.default_rng(seed)
    numbers = draw.uniform(-5, 5, (clients, 6))
    numbers[:, 0], numbers[:, 1] = 5.0, -5.0
    total = np.zeros(6, np.uint64)
    for row in numbers:
        total += form.encode(row)
    error = np.abs(form.decode(total) - numbers.sum(0))
    assert (error <= clients * form.step / 2 + clients * 5.0 * clients * 2.0**-52).all()


@given(st.lists(st.floats(-4, 4), min_size=1, max_size=20), BITS)
@settings(deadline=None)
def test_a_number_comes_back_within_half_a_step_also_from_its_bytes(values, bits):
    form = FixedPoint(3, bits, 4.0)
    numbers = np.array(values)
    packed = form.pack(form.encode(numbers))
    assert packed.shape == (len(values), bits // 8)
    assert packed.dtype == np.uint8
    assert (np.abs(form.decode(form.unpack(packed)) - numbers) <= form.step / 2).all()


def test_what_cannot_be_summed_is_refused():
    form = FixedPoint(3, 32, 4.0)
    for wrong, why in ((np.nan, "not finite"), (np.inf, "not finite"), (4.001, "up to 4"), (-1e30, "up to 4")):
        with pytest.raises(OutOfRange, match=why):
            form.encode(np.array([0.0, wrong]))
    with pytest.raises(Mistake, match="16 bits leave steps"):
        FixedPoint(1000, 16, 1024.0)
    with pytest.raises(Mistake, match="bits = 33"):
        FixedPoint(3, 33)
    with pytest.raises(Mistake, match="limit = 0"):
        FixedPoint(3, 32, 0.0)
