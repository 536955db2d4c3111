"""Properties of every partition, and of each one."""

from __future__ import annotations

import dataclasses
import inspect
import re
from collections import Counter

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from coterie.core.errors import Mistake
from coterie.data import PARTITIONS, Partition, partitions
from coterie.data.partitions import dirichlet, iid, label, quantity, shards
from coterie.data.partitions.natural import rows_by_client

some_labels = st.lists(st.integers(0, 4), min_size=12, max_size=80).map(np.array)
some_alpha = st.floats(1e-3, 100)


def rng(seed: int = 0) -> np.random.Generator:
    return np.random.default_rng(seed)


def assert_partition(parts, n):
    """Disjoint, complete, ascending, int64, and nobody without examples."""
    assert sorted(np.concatenate(parts).tolist()) == list(range(n))
    for part in parts:
        assert part.dtype == np.int64
        assert len(part) > 0
        assert (np.diff(part) > 0).all()


@given(some_labels, st.integers(1, 12), st.integers(0, 9))
def test_iid_is_even_and_repeats(labels, num_clients, seed):
    parts = iid()(labels, num_clients, rng(seed))
    assert_partition(parts, len(labels))
    sizes = [len(p) for p in parts]
    assert max(sizes) - min(sizes) <= 1
    assert all(np.array_equal(a, b) for a, b in zip(parts, iid()(labels, num_clients, rng(seed)), strict=True))


@given(some_labels, st.integers(1, 6), st.integers(1, 2), st.integers(0, 9))
def test_shards_deals_runs_of_the_sorted_examples(labels, num_clients, each, seed):
    """Every client's examples are `each` runs of the examples sorted by label; runs differ in length by at most one."""
    parts = shards(each)(labels, num_clients, rng(seed))
    assert_partition(parts, len(labels))
    place = np.argsort(np.argsort(labels, kind="stable"))  # each example's place among the sorted
    short, long = len(labels) // (num_clients * each), -(-len(labels) // (num_clients * each))
    for part in parts:
        assert each * short <= len(part) <= each * long
        breaks = np.count_nonzero(np.diff(np.sort(place[part])) > 1)
        assert breaks <= each - 1


def test_shards_on_two_labels_by_hand():
    """Labels 0 0 0 0 1 1 1 1, two clients, one shard each: for any draw, one holds 0-3 and the other 4-7."""
    parts = shards(1)(np.array([0, 0, 0, 0, 1, 1, 1, 1]), 2, rng())
    assert sorted(p.tolist() for p in parts) == [[0, 1, 2, 3], [4, 5, 6, 7]]


@settings(max_examples=50)
@given(some_labels, st.integers(1, 5), some_alpha, st.integers(1, 2), st.integers(0, 9))
def test_dirichlet_gives_a_partition_or_a_mistake(labels, num_clients, alpha, least, seed):
    try:
        parts = dirichlet(alpha, least)(labels, num_clients, rng(seed))
    except Mistake as mistake:
        said = str(mistake)
    else:
        said = ""
    if said:
        assert re.match("alpha = .* draws .*min_examples", said)
        return
    assert_partition(parts, len(labels))
    assert min(len(p) for p in parts) >= least
    again = dirichlet(alpha, least)(labels, num_clients, rng(seed))
    assert all(np.array_equal(a, b) for a, b in zip(parts, again, strict=True))


def test_dirichlet_goes_from_even_to_one_client_per_class():
    """With alpha = 1e6 each of 4 clients gets a quarter of each class to within a few; with 1e-3 a class has one owner.

    The standard deviation of a share at alpha = 1e6 is sqrt(3 / 16 / 4e6) = 2e-4, which is 0.2 of 1000 examples.
    """
    labels = np.repeat(np.arange(4), 1000)
    for part in dirichlet(1e6)(labels, 4, rng()):
        assert all(abs(n - 250) <= 3 for n in Counter(labels[part].tolist()).values())
    parts = dirichlet(1e-3)(labels, 2, rng())
    for c in range(4):
        assert max(np.count_nonzero(labels[p] == c) for p in parts) >= 990


def test_dirichlet_suggests_what_to_change_if_no_draw_serves_every_client():
    """With alpha = 1e-6 two classes have two owners at most, so a third client gets nothing in any draw."""
    with pytest.raises(Mistake, match=r"alpha = 1e-06.*num_clients = 3.*min_examples = 1.*raise alpha"):
        dirichlet(1e-6)(np.repeat([0, 1], 20), 3, rng())


@given(some_labels, st.integers(1, 6), some_alpha, st.integers(1, 2), st.integers(0, 9))
def test_quantity_always_ends(labels, num_clients, alpha, least, seed):
    parts = quantity(alpha, least)(labels, num_clients, rng(seed))
    assert_partition(parts, len(labels))
    assert min(len(p) for p in parts) >= least


def test_quantity_sizes_spread_with_small_alpha_and_agree_with_large():
    """At alpha = 1e6 each of 10 clients of 1000 examples gets 100, to rounding; at 0.1 the largest has far more."""
    labels = np.zeros(1000, dtype=np.int64)
    even = [len(p) for p in quantity(1e6)(labels, 10, rng())]
    uneven = [len(p) for p in quantity(0.1)(labels, 10, rng())]
    assert max(abs(n - 100) for n in even) <= 2
    assert max(uneven) > 300


@given(st.integers(1, 6), st.integers(1, 12), st.data())
def test_label_holds_every_label_evenly(num_labels, num_clients, data):
    """Every label held, holders differ by at most one, exactly L labels a client, a label's examples split evenly."""
    least = -(-num_labels // num_clients)
    each = data.draw(st.integers(least, num_labels)) if least <= num_labels else num_labels
    labels = rng(data.draw(st.integers(0, 9))).permutation(np.repeat(np.arange(num_labels), 15))
    parts = label(each)(labels, num_clients, rng(1))
    assert_partition(parts, len(labels))
    held = [set(labels[p].tolist()) for p in parts]
    assert all(len(h) == each for h in held)
    holders = [sum(c in h for h in held) for c in range(num_labels)]
    assert min(holders) >= 1
    assert max(holders) - min(holders) <= 1
    for c in range(num_labels):
        counts = [np.count_nonzero(labels[p] == c) for p, h in zip(parts, held, strict=True) if c in h]
        assert max(counts) - min(counts) <= 1


@given(st.lists(st.sampled_from(["ward", "7", "10", "é"]), min_size=1))
def test_rows_are_grouped_by_id_in_sorted_order(groups):
    parts = rows_by_client(groups)
    assert list(parts) == sorted(set(groups))
    assert_partition(list(parts.values()), len(groups))
    assert all(groups[i] == c for c, part in parts.items() for i in part)


LABELS = np.repeat(np.arange(3), 10)


@pytest.mark.parametrize(
    ("call", "says"),
    [
        (lambda: iid()(LABELS, 31, rng()), "num_clients = 31: .* 30"),
        (lambda: iid()(LABELS, 0, rng()), "num_clients = 0"),
        (lambda: iid()(LABELS, 2.5, rng()), r"num_clients = 2.5"),
        (lambda: iid()(LABELS, True, rng()), "num_clients = true"),
        (lambda: shards(2)(LABELS, 16, rng()), "num_clients = 16: .*shards_per_client.* 15 clients"),
        (lambda: shards(0)(LABELS, 3, rng()), "shards_per_client = 0"),
        (lambda: dirichlet(0)(LABELS, 3, rng()), "alpha = 0"),
        (lambda: dirichlet(-1.0)(LABELS, 3, rng()), "alpha = -1"),
        (lambda: dirichlet(float("nan"))(LABELS, 3, rng()), "alpha = nan"),
        (lambda: dirichlet(float("inf"))(LABELS, 3, rng()), "alpha = inf"),
        (lambda: dirichlet("much")(LABELS, 3, rng()), 'alpha = "much"'),
        (lambda: dirichlet(1.0, 11)(LABELS, 3, rng()), "num_clients = 3: .*min_examples"),
        (lambda: dirichlet(1.0, 0)(LABELS, 3, rng()), "min_examples = 0"),
        (lambda: quantity(0.0)(LABELS, 3, rng()), "alpha = 0"),
        (lambda: quantity(1.0)(LABELS, 31, rng()), "num_clients = 31"),
        (lambda: label(4)(LABELS, 3, rng()), "labels_per_client = 4: .* only 3 labels"),
        (lambda: label(1)(LABELS, 2, rng()), "labels_per_client = 1: .* give at least 2"),
        (lambda: label(2)(LABELS, 16, rng()), "num_clients = 16: label . has 10 examples for 11"),
    ],
)
def test_a_partition_that_cannot_be_dealt_names_the_argument(call, says):
    with pytest.raises(Mistake, match=f"^{says}"):
        call()


OWN = {"shards_per_client": 3, "alpha": 1.0, "min_examples": 2, "labels_per_client": 2}


@pytest.mark.parametrize("name", PARTITIONS)
def test_a_partition_is_a_frozen_value(name):
    """Two partitions made from the same arguments are equal; the registry knows them by their name."""
    make = PARTITIONS[name]
    arguments = {key: OWN[key] for key in inspect.signature(make).parameters}
    made = make(**arguments)
    assert isinstance(made, Partition)
    assert made.name == name
    assert made == make(**arguments)
    assert hash(made) == hash(make(**arguments))
    with pytest.raises(dataclasses.FrozenInstanceError):
        made.name = "another"
    if arguments:
        assert made != make(**{key: value + 1 for key, value in arguments.items()})
    assert getattr(partitions, name) is make


def test_other_names_are_not_attributes():
    with pytest.raises(AttributeError, match="halves"):
        partitions.halves  # noqa: B018
