"""The fixed test split."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from coterie.core.errors import Mistake
from coterie.data.train_test_split import combine_strata, split_rows, strata_by_client


@given(st.lists(st.integers(0, 4), min_size=10, max_size=200), st.floats(0.1, 0.9))
def test_split_is_disjoint_complete_fixed_and_stratified(strata, fraction):
    """Each stratum of n rows gives floor(f n) or one more, and never its last row."""
    train, test = split_rows(strata, fraction)
    assert sorted([*train, *test]) == list(range(len(strata)))
    assert (np.diff(train) > 0).all()
    assert (np.diff(test) > 0).all()
    again = split_rows(strata, fraction)
    assert np.array_equal(train, again[0])
    values = np.array(strata)
    for s in set(strata):
        n, taken = np.count_nonzero(values == s), np.count_nonzero(values[test] == s)
        assert taken <= n - 1
        assert min(np.floor(fraction * n), n - 1) <= taken <= np.floor(fraction * n) + 1


def test_split_by_hand():
    """10 rows of "a" and 5 of "b" at 0.2: shares 2 and 1, both whole, so 2 and 1 rows."""
    strata = ["a"] * 10 + ["b"] * 5
    _, test = split_rows(strata, 0.2)
    assert [strata[i] for i in test] == ["a", "a", "b"]


@pytest.mark.parametrize("fraction", [0, 1, -0.2, 1.5, float("nan"), "half", True])
def test_a_fraction_outside_0_to_1_is_a_mistake(fraction):
    with pytest.raises(Mistake, match=r"^test_fraction = "):
        split_rows([0, 1] * 10, fraction)


def test_nothing_left_to_test_on_is_a_mistake():
    with pytest.raises(Mistake, match=r"none would be left to test on"):
        split_rows([0, 1, 2, 3, 4], 0.2)


def test_combined_strata_distinguish_pairs():
    assert combine_strata(["x", "x", "y", "y"], [0, 1, 0, 0]).tolist() == [0, 1, 2, 2]


def test_ties_between_strata_are_random():
    """Each of 100 classes has two rows, so 40 of them give one; of the first 40 the median would be below 20."""
    labels = np.repeat(np.arange(100), 2)
    _, test = split_rows(labels, 0.2)
    assert len(set(labels[test])) == len(test) == 40
    assert 30 < np.median(labels[test]) < 70


def test_clients_with_one_row_of_each_class_give_their_share():
    """Twenty clients with ten classes of one row each: no client's class can give a row, but each client gives two."""
    labels, ids = np.tile(np.arange(10), 20), [str(i // 10) for i in range(200)]
    _, test = split_rows(strata_by_client(labels, ids), 0.2)
    assert [sum(ids[i] == str(k) for i in test) for k in range(20)] == [2] * 20


def test_clients_with_enough_rows_give_rows_of_each_class():
    """Two clients with ten rows of each of two classes: two of each; without ids, four of each class."""
    labels, ids = np.arange(40) % 2, ["a"] * 20 + ["b"] * 20
    _, test = split_rows(strata_by_client(labels, ids), 0.2)
    assert sorted((ids[i], labels[i].item()) for i in test) == sorted([("a", 0), ("a", 1), ("b", 0), ("b", 1)] * 2)
    assert strata_by_client(labels, None) is labels
