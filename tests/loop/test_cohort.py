"""Who is asked: how many, without repetition, evenly, and at a cost that does not grow with the population."""

import random
from collections import Counter
from collections.abc import Sequence
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from torch import nn

import coterie
from coterie import Cohort, Mistake
from coterie.core import rng
from tests.federations import ragged

IDS = [f"client {k}" for k in range(20)]


@given(st.integers(0, 100), st.integers(1, 10**6))
def test_a_fraction_is_read_as_it_is_written(percent: int, population: int) -> None:
    """floor(percent * N / 100) in whole numbers, at least 1: 0.29 of 100 is 29, though 0.29 * 100 is less."""
    assert Cohort(fraction=percent / 100).count(population) == max(percent * population // 100, 1)


def test_counts() -> None:
    assert Cohort(fraction=0.29).count(100) == 29
    assert Cohort(fraction=0.0).count(100) == 1
    assert Cohort(fraction=1.0).count(7) == 7
    assert Cohort(fraction=1 / 3).count(3) == 1
    assert Cohort(fraction=2 / 3).count(3) == 2
    assert Cohort(size=3).count(7) == 3
    assert Cohort().count(7) == 7


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"fraction": 0.5, "size": 2}, "fraction and size are both given"),
        ({"fraction": -0.1}, "fraction = -0.1: it must be between 0 and 1"),
        ({"fraction": 1.5}, "fraction = 1.5"),
        ({"fraction": float("nan")}, "fraction = nan"),
        ({"size": 0}, "size = 0: it must be 1 or more"),
    ],
)
def test_what_cannot_be_a_cohort(options: dict[str, Any], words: str) -> None:
    with pytest.raises(Mistake, match=words):
        Cohort(**options)


@pytest.mark.parametrize(("chosen", "asked"), [(1, 1), (np.int64(1), 1), (1.0, 6), (np.float32(0.5), 3), (None, 6)])
def test_a_whole_number_is_a_size_and_any_other_a_fraction(chosen: Any, asked: int) -> None:
    plan = coterie.plan(coterie.fedavg(lr=0.1), nn.Linear(6, 3), ragged(), rounds=1, cohort=chosen)
    assert plan.cohort.count(len(plan.ids)) == asked


def test_more_than_there_are() -> None:
    with pytest.raises(Mistake, match=r"size = 8: there are 7 clients; lower it to 7 or less"):
        Cohort(size=8).count(7)


@given(st.integers(1, 20), st.integers(1, 50), st.integers(0, 3))
def test_a_draw_is_without_repetition_and_in_the_clients_order(size: int, round: int, seed: int) -> None:
    drawn = Cohort(size=size).draw(IDS, seed, round)
    assert len(drawn) == size
    assert drawn == sorted(set(drawn), key=IDS.index)
    assert drawn == Cohort(size=size).draw(IDS, seed, round)


def test_rounds_and_seeds_draw_differently() -> None:
    draws = [tuple(Cohort(size=5).draw(IDS, seed, round)) for seed in range(3) for round in range(10)]
    assert len(set(draws)) == 30


@given(st.sets(st.integers(0, 19)), st.integers(1, 20))
def test_only_the_available_are_asked(there: set[int], size: int) -> None:
    drawn = Cohort(size=size).draw(IDS, 0, 1, lambda round, client: IDS.index(client) in there)
    assert len(drawn) == min(size, len(there))
    assert {IDS.index(client) for client in drawn} <= there


def test_the_available_are_asked_about_the_round() -> None:
    asked: set[int] = set()
    Cohort().draw(IDS, 0, 7, lambda round, client: bool(asked.add(round)) or True)
    assert asked == {7}


def test_a_larger_cohort_contains_the_smaller_one() -> None:
    """The same order, cut later: what comes of more clients differs from what came of fewer by the added ones alone."""
    assert set(Cohort(size=5).draw(IDS, 0, 1)) < set(Cohort(size=9).draw(IDS, 0, 1))


class Ids(Sequence[str]):
    """Any number of clients that exist only when looked at; counts the looks."""

    def __init__(self, n: int) -> None:
        self.n, self.looks = n, 0

    def __len__(self) -> int:
        return self.n

    def __getitem__(self, k: Any) -> Any:
        self.looks += 1
        return str(k)

    def __iter__(self) -> Any:
        raise AssertionError("all clients were looked at")


@pytest.mark.parametrize("population", [100, 10**6, 10**12])
@pytest.mark.parametrize("available", [None, lambda round, client: True])
def test_the_cost_is_that_of_the_cohort(population: int, available: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """Looks at ids and random draws, counted: as many of a million clients as of a hundred."""
    draws: list[int] = []
    real = random.Random.randrange
    monkeypatch.setattr(random.Random, "randrange", lambda self, *a: draws.append(1) or real(self, *a))
    ids = Ids(population)
    assert len(Cohort(size=10).draw(ids, 0, 1, available)) == 10
    assert len(draws) == 10
    assert ids.looks == (10 if available is None else 20)


def test_every_client_is_asked_equally_often() -> None:
    """Over 4000 rounds of 3 of 20, each client is asked 600 times, with a standard deviation of
    sqrt(4000 * 0.15 * 0.85) = 22.6; and each pair 4000 * 3 * 2 / (20 * 19) = 63.2 times, with one of 7.9."""
    rounds = [Cohort(size=3).draw(IDS, 0, round) for round in range(4000)]
    each = Counter(client for cohort in rounds for client in cohort)
    assert all(abs(each[client] - 600) < 5 * 22.6 for client in IDS)
    pairs = Counter((a, b) for cohort in rounds for a in cohort for b in cohort if a < b)
    assert len(pairs) == 190
    assert all(abs(count - 63.2) < 5 * 7.9 for count in pairs.values())


def test_the_draw_is_that_of_the_purpose_cohort() -> None:
    """Nothing else may draw from it: the order is that of a shuffle of (rng seed, round, "cohort")."""
    order = list(rng.shuffle(20, rng.python_generator(3, 5, "cohort")))[:4]
    assert Cohort(size=4).draw(IDS, 3, 5) == [IDS[k] for k in sorted(order)]


@given(st.integers(0, 10**6), st.integers(1, 10**6))
def test_a_poisson_draw_is_a_subset_in_order_and_depends_on_seed_and_round(seed: int, round: int) -> None:
    cohort = Cohort(fraction=0.3, sampling="poisson")
    drawn = cohort.draw(IDS, seed, round)
    assert drawn == [client for client in IDS if client in drawn] == cohort.draw(IDS, seed, round)
    there = cohort.draw(IDS, seed, round, lambda round, client: client in IDS[::2])
    assert there == [client for client in drawn if client in IDS[::2]]  # nobody takes the place of who is away


def test_poisson_draws_are_independent_with_the_fractions_probability() -> None:
    """Each of 20 clients is in 30 % of 4000 rounds, and two of them in 9 %; 4.9 standard deviations are allowed."""
    rounds = [set(Cohort(fraction=0.3, sampling="poisson").draw(IDS, 0, round)) for round in range(4000)]
    for client in IDS:
        assert abs(sum(client in drawn for drawn in rounds) / 4000 - 0.3) < 4.9 * (0.3 * 0.7 / 4000) ** 0.5
    both = sum({IDS[0], IDS[1]} <= drawn for drawn in rounds) / 4000
    assert abs(both - 0.09) < 4.9 * (0.09 * 0.91 / 4000) ** 0.5
    assert Cohort(size=6, sampling="poisson").probability(20) == 0.3
    assert Cohort(sampling="poisson").draw(IDS, 0, 1) == IDS
    assert len({len(drawn) for drawn in rounds}) > 5


def test_a_poisson_draw_needs_a_probability() -> None:
    with pytest.raises(Mistake, match=r'fraction = 0: it must be above 0 with sampling = "poisson"'):
        Cohort(fraction=0, sampling="poisson")
