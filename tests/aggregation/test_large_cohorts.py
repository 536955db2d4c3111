"""What rules that see all updates do with hundreds of them: the same numbers, some columns at a time."""

from __future__ import annotations

import pytest
import torch

from coterie.aggregation.median import median, sort_columns
from coterie.aggregation.trimmed_mean import trimmed_mean
from coterie.core import aggregators
from coterie.core.aggregators import block_columns, flatten_all


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
