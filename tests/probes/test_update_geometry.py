"""Drift, diversity and cosines, by hand and by identities."""

import math

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from coterie.core.tree import Tree
from coterie.probes import cosine, diversity, drift


def tree_of(*numbers: float, dtype: torch.dtype = torch.float64) -> Tree:
    """Return one difference, with its numbers in two leaves."""
    return {"a": torch.tensor(numbers[:1], dtype=dtype), "b": torch.tensor(numbers[1:], dtype=dtype)}


numbers = st.floats(-10, 10).map(lambda x: round(x, 3))
clients = st.lists(st.tuples(numbers, numbers, numbers), min_size=1, max_size=6)


def test_an_unequal_weighting_by_hand() -> None:
    """p = (3/4, 1/4), D_1 = (2, 0), D_2 = (0, 4): D = (1.5, 1), |D|^2 = 3.25.
    D_1 - D = (0.5, -1), D_2 - D = (-1.5, 3): dispersion 0.75 * 1.25 + 0.25 * 11.25 = 3.75.
    distance 0.75 * 2 + 0.25 * 4 = 2.5; cosines 1.5 / sqrt(3.25) and 1 / sqrt(3.25), whose mean is 1.375 / sqrt(3.25).
    The weighting does not enter the diversity: (4 + 16) / |(2, 4)|^2 = 1.
    """
    two = [tree_of(2.0, 0.0), tree_of(0.0, 4.0)]
    assert drift(two, [0.75, 0.25]) == pytest.approx(
        {"dispersion": 3.75, "distance": 2.5, "cosine": 1.375 / math.sqrt(3.25)}
    )
    assert diversity(two) == pytest.approx(1.0)


def test_a_zero_difference_has_no_cosine() -> None:
    apart = [tree_of(1.0, 2.0), tree_of(-1.0, -2.0)]
    assert drift(apart, [0.5, 0.5]) == {"dispersion": 5.0, "distance": pytest.approx(math.sqrt(5)), "cosine": None}
    assert diversity(apart) is None
    assert drift([tree_of(0.0, 0.0), tree_of(1.0, 0.0)], [0.5, 0.5])["cosine"] is None
    assert cosine(tree_of(0.0, 0.0), tree_of(1.0, 0.0)) is None


@given(clients)
def test_dispersion_is_the_mean_squared_distance_between_pairs(rows: list[tuple[float, ...]]) -> None:
    """sum_i p_i |D_i - D|^2 = 1/2 sum_ij p_i p_j |D_i - D_j|^2."""
    p = [k + 1 for k in range(len(rows))]
    shares = [weight / sum(p) for weight in p]
    pairs = sum(
        q * r * sum((x - y) ** 2 for x, y in zip(a, b, strict=True)) / 2
        for q, a in zip(shares, rows, strict=True)
        for r, b in zip(shares, rows, strict=True)
    )
    assert drift([tree_of(*row) for row in rows], shares)["dispersion"] == pytest.approx(pairs, abs=1e-9)


@given(clients)
def test_diversity_follows_from_dispersion_for_an_equal_weighting(rows: list[tuple[float, ...]]) -> None:
    """n diversity = 1 + dispersion / |D|^2, so diversity is at least 1/n."""
    n, all_of_them = len(rows), [tree_of(*row) for row in rows]
    found = diversity(all_of_them)
    centre = sum((sum(column) / n) ** 2 for column in zip(*rows, strict=True))
    if centre < 1e-6:
        return
    assert found is not None
    dispersion = drift(all_of_them, [1 / n] * n)["dispersion"]
    assert dispersion is not None
    assert n * found == pytest.approx(1 + dispersion / centre)
    assert n * found > 1 - 1e-9


@given(clients, st.floats(0.01, 100))
def test_diversity_and_cosines_do_not_depend_on_length(rows: list[tuple[float, ...]], factor: float) -> None:
    n = len(rows)
    short, long = [tree_of(*row) for row in rows], [tree_of(*(factor * x for x in row)) for row in rows]
    if (a := diversity(short)) is not None and a < 1e6:
        assert diversity(long) == pytest.approx(a, rel=1e-6)
        assert drift(long, [1 / n] * n)["cosine"] == pytest.approx(drift(short, [1 / n] * n)["cosine"], abs=1e-6)


def test_small_differences_of_long_vectors_are_not_lost() -> None:
    """float32 cannot hold 10,000^2 + 1, so a difference of squares would give 0 or worse."""
    one, other = tree_of(1e4, 1e4, dtype=torch.float32), tree_of(1e4, 1e4 + 2, dtype=torch.float32)
    assert drift([one, other], [0.5, 0.5])["dispersion"] == pytest.approx(1.0)


def test_leaves_are_matched_by_their_names() -> None:
    swapped = dict(reversed(tree_of(2.0, 0.0).items()))
    assert drift([swapped, tree_of(0.0, 4.0)], [0.5, 0.5]) == drift([tree_of(2.0, 0.0), tree_of(0.0, 4.0)], [0.5, 0.5])
