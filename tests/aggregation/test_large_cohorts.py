"""What rules that see all updates do with hundreds of them: the same numbers, some columns at a time."""

from __future__ import annotations

import pytest
import torch

from coterie.aggregation.median import median, sort_columns
from coterie.aggregation.trimmed_mean import trimmed_mean
from coterie.core import aggregators
from coterie.core.aggregators import AllUpdates, Sum, block_columns, flatten_all


def updates(n: int, d: int) -> torch.Tensor:
    return torch.randn(n, d, generator=torch.Generator().manual_seed(0))


def bits(x: torch.Tensor) -> torch.Tensor:
    return x.view(torch.int32)


@pytest.mark.parametrize("rule", [median(), trimmed_mean(3)], ids=["median", "trimmed_mean"])
def test_some_columns_at_a_time_give_the_bits_of_all_at_once(rule, monkeypatch):
    x = updates(60, 9001)
    whole = rule.rule(x)
    monkeypatch.setattr(aggregators, "BLOCK_NUMBERS", 60 * 4096)
    assert torch.equal(bits(rule.reduce(x, [])), bits(whole))


@pytest.mark.parametrize("zero", [0.0, -0.0])
def test_columns_are_sorted_as_pytorch_sorts_them(zero):
    x = updates(51, 300)
    x[::3] *= zero
    assert torch.equal(bits(sort_columns(x)), bits(x.sort(dim=0).values))


def test_a_block_of_a_thousand_updates_is_as_large_as_one_of_few():
    """2^24 numbers, 64 MB: of 16 updates 2^20 columns, of 1,000 a multiple of 4,096 below 16,778."""
    assert block_columns(16) * 16 == block_columns(1024) * 1024 == 2**24
    assert block_columns(1000) == 4 * 4096
    assert block_columns(1) == 2**20


def test_rows_are_the_updates_in_the_order_of_the_first():
    trees = [{"a": torch.tensor([k, 2.0 * k]), "b": torch.tensor([[3.0 * k]])} for k in (1.0, 2.0)]
    other = {"b": trees[1]["b"], "a": trees[1]["a"]}
    assert flatten_all([trees[0], other], trees[0]).tolist() == [[1.0, 2.0, 3.0], [2.0, 4.0, 6.0]]


def test_updates_that_come_in_any_order_are_rows_in_the_order_of_the_cohort(monkeypatch):
    """Blocks hold two rows, so five updates fill two and a half; the median of rows k, 2k is (2, 4)."""
    monkeypatch.setattr(aggregators, "BLOCK_ROWS", 2)
    kept = AllUpdates(median(), None)
    for place in (3, 0, 4, 1, 2):
        kept.add({"a": torch.tensor([float(place)]), "b": torch.tensor([[2.0 * place]])}, 1.0 + place, place)
    order = sorted(range(5), key=kept.places.__getitem__)
    assert kept.give_rows(order).tolist() == [[k, 2.0 * k] for k in range(5)]
    assert kept._blocks == []


@pytest.mark.parametrize("block", [1, 2, 3, 7, 8])
@pytest.mark.parametrize("rule", [median(), Sum()], ids=["median", "mean"])
def test_blocks_change_no_aggregate(rule, block, monkeypatch):
    monkeypatch.setattr(aggregators, "BLOCK_ROWS", block)
    x, places, weights = updates(7, 40), [2, 6, 0, 1, 5, 4, 3], [3.0, 1.0, 2.0, 5.0, 1.0, 4.0, 1.0]
    kept = AllUpdates(rule, None)
    for place in places:
        kept.add({"w": x[place].reshape(5, 8)}, weights[place], place)
    assert torch.equal(kept.result()["w"], rule.reduce(x, weights).reshape(5, 8))


def test_an_update_is_not_kept_where_the_client_can_write_into_it():
    w, kept = torch.ones(3), AllUpdates(median(), None)
    kept.add({"w": w}, 1.0, 0)
    w.zero_()
    assert kept.result()["w"].tolist() == [1.0, 1.0, 1.0]
