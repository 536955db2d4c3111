"""Every draw is a function of its purpose, and looks like chance."""

import random
from collections import Counter
from itertools import islice

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

from coterie.core import rng

KEY = rng.key(0, "x")


def chi_square(counts: list[int] | Tensor) -> float:
    """Of equally likely outcomes, in standard deviations from what chance gives: the mean is k - 1, the variance
    2 (k - 1)."""
    observed = torch.as_tensor(counts, dtype=torch.float64)
    expected = observed.sum() / len(observed)
    freedom = len(observed) - 1
    return float((((observed - expected) ** 2 / expected).sum() - freedom) / (2 * freedom) ** 0.5)


def test_the_numbers_are_those_of_every_other_process_and_machine() -> None:
    """Drawn once and written down: a change of these numbers changes every experiment ever run."""
    assert rng.number("a", 1) == 4665976284724862560
    assert KEY.item() == 139067458
    assert rng.fold(KEY, 5).item() == 1896708237
    bits = [4039027312, 1612414002, 1947487756, 4136134700]
    assert rng.bits(KEY, (4,)).tolist() == bits
    assert rng.uniform(KEY, (2, 2)).flatten().tolist() == [(b >> 8) / 2**24 for b in bits]
    assert rng.python_generator(0, "x").random() == 0.17124315332794016
    assert list(rng.shuffle(6, rng.python_generator(0, "x"))) == [1, 3, 2, 5, 0, 4]


def test_two_generators_of_one_purpose_draw_alike_and_of_two_purposes_differ() -> None:
    def draw(*purpose: object) -> list[int]:
        return torch.randint(2**31, (8,), generator=rng.generator(*purpose)).tolist()

    assert draw(0, 1, "order") == draw(0, 1, "order")
    assert len({tuple(draw(seed, round, word)) for seed in (0, 1) for round in (1, 2) for word in ("a", "b")}) == 8
    assert rng.number(1, 23) != rng.number(12, 3)


def test_global_generators_are_neither_read_nor_moved() -> None:
    torch.manual_seed(7)
    random.seed(7)
    expected = (torch.rand(()).item(), random.random())
    torch.manual_seed(7)
    random.seed(7)
    (
        rng.uniform(rng.key(1), (5,)),
        list(rng.shuffle(5, rng.python_generator(1))),
        torch.randperm(5, generator=rng.generator(1)),
    )
    assert (torch.rand(()).item(), random.random()) == expected


def test_uniform_is_uniform() -> None:
    """Mean 1/2 and variance 1/12 within six standard errors, and 64 boxes evenly filled, for several keys.

    The error of the mean is sqrt(1 / 12 n), that of the variance sqrt(1 / 180 n).
    """
    n = 2**16
    for k in range(8):
        u = rng.uniform(rng.key("uniform", k), (n,)).double()
        assert u.min() >= 0
        assert u.max() < 1
        assert abs(u.mean() - 1 / 2) < 6 / (12 * n) ** 0.5
        assert abs(((u - 1 / 2) ** 2).mean() - 1 / 12) < 6 / (180 * n) ** 0.5
        assert abs(chi_square(torch.bincount((u * 64).long(), minlength=64))) < 6


def test_neighbours_are_unrelated() -> None:
    """The correlation of n pairs has a standard error of 1 / sqrt(n): next positions, next keys, next folds."""
    n = 2**16
    first = rng.uniform(rng.key("a"), (n,)).double()
    folds = rng.fold(KEY, torch.arange(n + 1)).double()
    pairs = {
        "positions": (first[:-1], first[1:]),
        "keys": (first, rng.uniform(rng.key("a") + 1, (n,)).double()),
        "folds": (folds[:-1], folds[1:]),
    }
    for name, (a, b) in pairs.items():
        assert abs(torch.corrcoef(torch.stack([a, b]))[0, 1]) < 6 / n**0.5, name


@pytest.mark.parametrize("what", ["key", "position", "fold's key"])
def test_each_bit_that_goes_in_moves_half_of_those_that_come_out(what: str) -> None:
    """Over 4096 inputs an output bit flips in 1/2 of the cases, within 0.06: over 7 standard errors of 1/128."""
    inputs = rng.bits(rng.key(what), (4096,))
    hashed = {
        "key": lambda k: torch.func.vmap(lambda one: rng.bits(one, (1,))[0])(k),
        "position": lambda p: rng.fold(KEY, p),
        "fold's key": lambda k: rng.fold(k, 3),
    }[what]
    before = hashed(inputs)
    for bit in range(32):
        flipped = before ^ hashed(inputs ^ (1 << bit))
        share = torch.stack([((flipped >> out) & 1).double().mean() for out in range(32)])
        assert ((share - 0.5).abs() < 0.06).all(), bit


def test_no_number_comes_twice_within_a_key() -> None:
    """A bijection of 32 bits repeats nothing, where 2^17 draws at random would in all likelihood."""
    assert len(rng.bits(KEY, (2**17,)).unique()) == 2**17
    assert len(rng.fold(KEY, torch.arange(2**17)).unique()) == 2**17


def test_products_of_32_bit_numbers_do_not_overflow() -> None:
    """The hash in Python's unbounded integers, where the second multiplier is 0x846CA68B as a positive number."""

    def mix(h: int) -> int:
        h ^= h >> 16
        h = h * 0x7FEB352D % 2**32
        h ^= h >> 15
        h = h * 0x846CA68B % 2**32
        return h ^ (h >> 16)

    for key in (0, 1, 2**31, 2**32 - 1, KEY.item()):
        expected = [mix(mix(position) ^ mix(key)) for position in range(100)]
        assert rng.bits(torch.tensor(key), (100,)).tolist() == expected


def test_a_loop_and_a_batch_over_keys_give_the_same_numbers() -> None:
    keys = rng.fold(KEY, torch.arange(5))
    batched = torch.func.vmap(lambda key: rng.uniform(rng.fold(key, 2), (3, 4)))(keys)
    one_by_one = torch.stack([rng.uniform(rng.fold(key, 2), (3, 4)) for key in keys])
    assert torch.equal(batched, one_by_one)


def test_a_longer_draw_begins_with_the_shorter_one() -> None:
    """So that a padded batch drops the same entries of its real rows."""
    assert torch.equal(rng.uniform(KEY, (7, 3))[:4], rng.uniform(KEY, (4, 3)))
    assert rng.uniform(KEY, ()).shape == ()
    assert rng.uniform(KEY, (0, 3)).shape == (0, 3)


@given(st.integers(0, 200), st.integers(0, 2**32))
def test_shuffle_gives_a_permutation(n: int, seed: int) -> None:
    assert sorted(rng.shuffle(n, random.Random(seed))) == list(range(n))


def test_the_first_of_a_billion_cost_one_draw_each() -> None:
    class Counting(random.Random):
        draws = 0

        def randrange(self, *args: int) -> int:
            self.draws += 1
            return super().randrange(*args)

    source = Counting(0)
    first = list(islice(rng.shuffle(10**9, source), 50))
    assert source.draws == 50
    assert len(set(first)) == 50
    assert all(0 <= i < 10**9 for i in first)


def test_every_order_of_four_is_as_likely() -> None:
    orders = Counter(tuple(rng.shuffle(4, rng.python_generator("orders", k))) for k in range(9600))
    assert len(orders) == 24
    assert abs(chi_square(list(orders.values()))) < 6
