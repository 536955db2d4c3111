"""Deal a source to clients."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from coterie.core.errors import Mistake
from coterie.core.examples import Examples
from coterie.data import PARTITIONS, Source, deal, own_test
from coterie.data.partitions import dirichlet, iid
from coterie.data.partitions.partition import NumberedPartition


def source(n: int = 60, groups: list[str] | None = None, **more) -> Source:
    x = torch.arange(float(n)).reshape(n, 1)
    return Source("toy", Examples(x, torch.arange(n) % 3), None, 3, groups=groups, **more)


def content(clients):
    return {c: e.tensors()[0].flatten().tolist() for c, e in clients.items()}


ARGUMENTS = {
    "iid": {},
    "shards": {},
    "dirichlet": {"alpha": 1.0},
    "label": {"labels_per_client": 2},
    "quantity": {"alpha": 1.0},
}


@pytest.mark.parametrize("partition", ARGUMENTS)
def test_every_partition_deals_all_of_a_shared_pool_repeatably(partition):
    toy = source()
    clients = deal(toy, partition=partition, num_clients=5, rng_seed=3, **ARGUMENTS[partition])
    assert list(clients) == ["0", "1", "2", "3", "4"]
    assert all(e.x is toy.train.x for e in clients.values())
    assert sorted(value for held in content(clients).values() for value in held) == list(map(float, range(60)))
    again = deal(toy, partition=partition, num_clients=5, rng_seed=3, **ARGUMENTS[partition])
    other = deal(toy, partition=partition, num_clients=5, rng_seed=4, **ARGUMENTS[partition])
    assert content(clients) == content(again)
    assert content(clients) != content(other)


def test_every_partition_is_tested_above():
    assert ARGUMENTS.keys() | {"natural"} == PARTITIONS.keys()


@pytest.mark.parametrize("partition", ARGUMENTS)
def test_a_partition_given_as_a_value_deals_the_same(partition):
    value = PARTITIONS[partition](**ARGUMENTS[partition])
    named = deal(source(), partition=partition, num_clients=5, rng_seed=3, **ARGUMENTS[partition])
    assert content(deal(source(), partition=value, num_clients=5, rng_seed=3)) == content(named)


def test_a_partition_of_the_users_own():
    """Every second example each."""
    halves = NumberedPartition(
        "halves", lambda labels, num_clients, rng: [np.arange(k, len(labels), 2) for k in (0, 1)]
    )
    assert content(deal(source(4), partition=halves, num_clients=2)) == {"0": [0.0, 2.0], "1": [1.0, 3.0]}


def test_one_call_serves_several_partitions():
    """Another partition's arguments and None are ignored."""
    more = {"alpha": 1.0, "labels_per_client": None, "shards_per_client": 3}
    with_more = deal(source(), partition="dirichlet", num_clients=5, **more)
    assert content(with_more) == content(deal(source(), partition=dirichlet(1.0), num_clients=5))
    assert content(deal(source(), num_clients=5, **more)) == content(deal(source(), partition=iid(), num_clients=5))


def test_natural_is_the_default_where_there_are_groups_and_iid_elsewhere():
    toy = source(6, groups=["b", "a", "b", "10", "a", "b"])
    assert content(deal(toy)) == {"10": [3.0], "a": [1.0, 4.0], "b": [0.0, 2.0, 5.0]}
    assert sorted(len(e) for e in deal(source(7), num_clients=2).values()) == [3, 4]


def test_a_source_that_is_itself_part_of_a_pool():
    """Training rows 4, 5, 6, 7 of a pool of 8: labels are read, and rows composed, through the pool."""
    pool = Examples(torch.arange(8.0).reshape(8, 1), torch.tensor([9, 9, 9, 9, 0, 1, 0, 1]))
    toy = Source("toy", pool.take(torch.arange(4, 8)), None, 2)
    clients = deal(toy, partition="label", num_clients=2, labels_per_client=1)
    assert sorted(content(clients).values()) == [[4.0, 6.0], [5.0, 7.0]]


@given(st.integers(1, 30), st.integers(0, 5))
def test_examples_per_client_takes_a_part_of_each(most, seed):
    full = content(deal(source(), num_clients=3, rng_seed=seed))
    part = content(deal(source(), num_clients=3, rng_seed=seed, examples_per_client=most))
    for c in full:
        assert len(part[c]) == min(most, len(full[c]))
        assert set(part[c]) <= set(full[c])


def test_the_examples_taken_from_a_client_depend_on_that_client_alone():
    """Client "a" keeps its five examples whether "b" is there or not."""
    both = source(40, groups=["a"] * 20 + ["b"] * 20)
    alone = source(20, groups=["a"] * 20)
    kept = [content(deal(s, examples_per_client=5))["a"] for s in (both, alone)]
    assert kept[0] == kept[1]


def test_own_test_gives_each_client_the_rows_that_carry_its_id():
    """Client "b" has no test rows, and "z" occurs only in test rows, so it is not a client: neither is returned."""
    test = Examples(torch.arange(4.0).reshape(4, 1), torch.zeros(4, dtype=torch.int64))
    toy = Source("toy", source(4).train, test, 3, groups=["a", "a", "b", "c"], test_groups=["a", "z", "c", "a"])
    assert content(own_test(toy, deal(toy))) == {"a": [0.0, 3.0], "c": [2.0]}
    assert own_test(source(), ["0"]) == {}


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        ({}, "num_clients: missing"),
        ({"partition": "dirichlet", "num_clients": 2}, "alpha: missing"),
        ({"partition": "label", "num_clients": 2}, "labels_per_client: missing"),
        (
            {"partition": "sorted", "num_clients": 2},
            'partition = "sorted": it must be one of iid, .*"flwr:NAME"',
        ),
        ({"partition": "natural"}, 'partition = "natural": .* name client_column'),
        ({"num_clients": 70000}, "num_clients = 70000: "),
        ({"num_clients": 2, "examples_per_client": 0}, "examples_per_client = 0"),
        ({"partition": "iid", "num_clients": 2, "alhpa": 0.3}, 'alhpa = 0.3: the partition "iid" does not take it'),
        ({"partition": iid(), "num_clients": 2, "alpha": 0.3}, "alpha = 0.3: give it to the partition itself"),
        ({"partition": 3, "num_clients": 2}, "partition = 3: it must be one of iid, "),
    ],
)
def test_arguments_that_cannot_be_used_are_named(arguments, says):
    with pytest.raises(Mistake, match=f"^{says}"):
        deal(source(), **arguments)


def test_num_clients_must_agree_with_the_clients_of_the_data():
    toy = source(6, groups=list("aabbcc"))
    assert len(deal(toy, num_clients=3)) == 3
    assert len(deal(toy, partition="iid", num_clients=2)) == 2
    with pytest.raises(Mistake, match=r"^num_clients = 2: .* has 3 clients of its own"):
        deal(toy, num_clients=2)


def test_a_partition_by_label_needs_one_label_each():
    toy = Source("toy", Examples(torch.zeros(4, 1), torch.zeros(4, 2, dtype=torch.int64)), None, None)
    with pytest.raises(Mistake, match=r'^partition = "shards": it needs one class label'):
        deal(toy, partition="shards", num_clients=2)
    assert len(deal(toy, partition="iid", num_clients=2)) == 2


def test_a_source_needs_one_client_id_for_each_example():
    with pytest.raises(Mistake, match=r"gives 2 groups for 3 examples"):
        source(3, groups=["a", "b"])
