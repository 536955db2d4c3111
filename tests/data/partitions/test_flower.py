"""Partitioners of flwr-datasets; tests that need the package are skipped if it is not installed."""

from __future__ import annotations

import importlib
import inspect

import pytest
import torch

from coterie.core.errors import Mistake
from coterie.core.examples import Examples
from coterie.data import Source, deal, load, partitions
from coterie.data.feature_encoding import ColumnEncoding
from coterie.data.partitions import flower


@pytest.fixture
def partitioners():
    pytest.importorskip("datasets").disable_progress_bars()
    return pytest.importorskip("flwr_datasets.partitioner")


def toy(groups=None):
    x = torch.arange(60.0).reshape(60, 1)
    return Source("toy", Examples(x, torch.arange(60) % 3), None, 3, groups=groups)


def content(clients):
    return {c: e.tensors()[0].flatten().tolist() for c, e in clients.items()}


def test_without_the_package_says_how_to_install_it(monkeypatch):
    def absent(name):
        raise ImportError(name)

    monkeypatch.setattr(importlib, "import_module", absent)
    says = r"^partition = \"flwr:IidPartitioner\": .*pip install 'coterie\[flower-datasets\]'"
    with pytest.raises(Mistake, match=says):
        flower.find_partitioner("flwr:IidPartitioner")


def test_a_partitioner_deals_a_shared_pool_repeatably(partitioners):
    """The same instance deals the same parts again; every example once; another rng seed, other parts."""
    source, partitioner = toy(), partitioners.DirichletPartitioner(4, "label", alpha=1.0, min_partition_size=2)
    clients = deal(source, partition=partitioner, rng_seed=3)
    assert list(clients) == ["0", "1", "2", "3"]
    assert all(e.x is source.train.x for e in clients.values())
    assert sorted(v for held in content(clients).values() for v in held) == list(map(float, range(60)))
    assert content(clients) == content(deal(source, partition=partitioner, rng_seed=3))
    assert content(clients) != content(deal(source, partition=partitioner, rng_seed=4))
    assert sum(len(e) for e in deal(source, partition=partitioner, examples_per_client=1).values()) == 4


def test_partitioners_see_labels_clients_and_features(partitioners):
    """Label 0, 1, 2 in turn; clients a, b, c, d in turn; ages 0 to 59 in order."""
    by_label = deal(toy(), partition=partitioners.PathologicalPartitioner(3, "label", 1, "deterministic"))
    assert sorted(set(e.labels().tolist()).pop() for e in by_label.values()) == [0, 1, 2]
    pairs = deal(
        toy(groups=list("abcd") * 15),
        partition=partitioners.GroupedNaturalIdPartitioner("client", 2, sort_unique_ids=True),
    )
    assert [{int(v) % 4 for v in held} for held in content(pairs).values()] == [{0, 1}, {2, 3}]
    table = Source("toy", toy().train, None, 3, columns=[ColumnEncoding("age", None, missing=False)])
    young, old = deal(table, partition=partitioners.ContinuousPartitioner(2, "age", strictness=1.0)).values()
    assert young.tensors()[0].max() < old.tensors()[0].min()


def test_rows_are_shuffled_first_as_in_flower(partitioners):
    """Sixty rows in order, cut in two as they come, would be 0 to 29 and 30 to 59."""
    first, _ = content(deal(toy(), partition=partitioners.IidPartitioner(2))).values()
    assert len(first) == 30
    assert first != list(map(float, range(30)))


def test_a_partitioner_is_named_with_its_own_arguments(partitioners):
    assert not inspect.signature(partitions.find_partition("flwr:IidPartitioner")).parameters
    make = partitions.find_partition("flwr:DirichletPartitioner")
    taken = inspect.signature(make).parameters
    assert taken["partition_by"].default == "label"
    assert taken["alpha"].default is inspect.Parameter.empty
    assert not {"num_partitions", "seed"} & taken.keys()
    a, again, other = (deal(toy(), partition=make(alpha=1.0), num_clients=4, rng_seed=seed) for seed in (0, 0, 1))
    assert content(a) == content(again) != content(other)
    by_name = deal(toy(), partition="flwr:DirichletPartitioner", num_clients=4, alpha=1.0)
    assert content(by_name) == content(a)


def test_a_partitioner_that_cannot_deal_gives_one_sentence(partitioners):
    made = partitioners.IidPartitioner(2)
    made.dataset = importlib.import_module("datasets").Dataset.from_dict({"a": [1, 2]})
    for partitioner, arguments, says in (
        (made, {}, r"IidPartitioner has a data set already"),
        (partitioners.IidPartitioner(2), {"num_clients": 3}, r"num_clients = 3: .* makes 2; leave it out"),
        (partitioners.IidPartitioner(61), {}, r"the partitioner IidPartitioner says: .* of size 60"),
        # three labels, each at one client of five
        (
            partitioners.DirichletPartitioner(5, "label", 1e-6, 0),
            {},
            r"num_clients = 5: .* leaves client \d without",
        ),
        (partitioners.VerticalEvenPartitioner(2), {}, r"VerticalEvenPartitioner deals columns, not rows"),
        (partitioners.DirichletPartitioner(2, "kind", 1.0), {}, r"the partitioner DirichletPartitioner says: .*kind"),
    ):
        with pytest.raises(Mistake, match=says) as raised:
            deal(toy(), partition=partitioner, **arguments)
        assert "\n" not in str(raised.value)
    with pytest.raises(Mistake, match=r"^num_clients: missing; the partition \"flwr:IidPartitioner\""):
        deal(toy(), partition="flwr:IidPartitioner")
    with pytest.raises(Mistake, match=r"^partition: .* says: Alpha values should be strictly greater than zero"):
        deal(toy(), partition="flwr:DirichletPartitioner", num_clients=2, alpha=-1.0)
    with pytest.raises(Mistake, match=r"^alpha: missing; the partition \"flwr:DirichletPartitioner\" needs it"):
        deal(toy(), partition="flwr:DirichletPartitioner", num_clients=2)
    with pytest.raises(Mistake, match=r"^alhpa = 1.0: the partition \"flwr:DirichletPartitioner\" does not take it"):
        deal(toy(), partition="flwr:DirichletPartitioner", num_clients=2, alpha=1.0, alhpa=1.0)
    with pytest.raises(Mistake, match=r"after flwr: it must be one of .*IidPartitioner"):
        partitions.find_partition("flwr:IdToSizeFncPartitioner")
    with pytest.raises(Mistake, match=r"the source synthetic makes its clients itself"):
        deal(load("synthetic", num_clients=3), partition=partitioners.IidPartitioner(2))
