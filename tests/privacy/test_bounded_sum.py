"""The bound: whatever a client sends, its part of a sum has the norm C at most, and a small update is not changed."""

from __future__ import annotations

import math

import torch
from hypothesis import given
from hypothesis import strategies as st

from coterie.core import tree
from coterie.privacy.bounded_sum import BoundedSum, bound

NUMBERS = st.floats(allow_nan=True, allow_infinity=True, width=64)
UPDATES = st.lists(NUMBERS, min_size=6, max_size=6)


def as_update(numbers: list[float]) -> tree.Tree:
    x = torch.tensor(numbers, dtype=torch.float64)
    return {"delta": {"params": {"w": x[:2], "b": x[2:3]}}, "statistics": {"mean": x[3:]}}


@given(UPDATES, st.floats(1e-6, 1e6))
def test_no_update_exceeds_the_joint_bound(numbers: list[float], limit: float) -> None:
    bounded, _ = bound(as_update(numbers), limit)
    assert float(tree.norm(bounded)) <= limit


@given(UPDATES, st.floats(1e-6, 1e6), st.floats(1e-6, 1e6))
def test_no_part_exceeds_its_own_bound(numbers: list[float], one: float, other: float) -> None:
    bounded, _ = bound(as_update(numbers), {"delta": one, "statistics": other})
    assert float(tree.norm({"delta": bounded["delta"]})) <= one
    assert float(tree.norm({"statistics": bounded["statistics"]})) <= other


@given(st.lists(UPDATES, min_size=1, max_size=4), st.floats(1e-3, 1e3))
def test_one_update_more_moves_the_sum_by_the_bound_at_most(all_numbers: list[list[float]], limit: float) -> None:
    without, whole = BoundedSum(limit), BoundedSum(limit)
    for numbers in all_numbers[:-1]:
        without.add(as_update(numbers))
        whole.add(as_update(numbers))
    whole.add(as_update(all_numbers[-1]))
    before = tree.zeros_like(as_update([0.0] * 6)) if without.total is None else without.total
    assert whole.total is not None
    assert float(tree.norm(tree.sub(whole.total, before))) <= limit * (1 + 1e-9)


def test_a_joint_bound_by_hand() -> None:
    """|(3, 4, 12)| = 13: a bound of 6.5 halves it, one of 13 leaves it, and float32 is summed in float64."""
    update = {"a": torch.tensor([3.0, 4.0]), "b": {"c": torch.tensor([12.0])}}
    halved, within = bound(update, 6.5)
    assert not within
    assert torch.allclose(halved["a"], torch.tensor([1.5, 2.0], dtype=torch.float64), rtol=1e-11)
    kept, within = bound(update, 13.0)
    assert within
    assert kept["b"]["c"].tolist() == [12.0]
    assert kept["a"].dtype == torch.float64


def test_bounds_of_parts_by_hand_and_the_count_of_small_updates() -> None:
    total = BoundedSum({"a": 1.0, "b": 20.0})
    total.add({"a": torch.tensor([3.0, 4.0]), "b": torch.tensor([12.0])})  # a is scaled to (0.6, 0.8)
    total.add({"a": torch.tensor([0.5, 0.0]), "b": torch.tensor([1.0])})
    assert total.total is not None
    assert torch.allclose(total.total["a"], torch.tensor([1.1, 0.8], dtype=torch.float64))
    assert total.total["b"].tolist() == [13.0]
    assert total.surplus == 0.0  # one within, one not


def test_what_has_no_norm_adds_nothing() -> None:
    for number in (math.nan, math.inf, 1e200):
        bounded, within = bound({"a": torch.tensor([number, 1.0], dtype=torch.float64)}, 1.0)
        assert bounded["a"].tolist() == [0.0, 0.0]
        assert not within
