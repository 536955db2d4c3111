"""What the server refuses, and in which words."""

import math
from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from coterie.core import tree
from coterie.loop.check_update import problem


def honest() -> dict[str, Any]:
    return {"delta": {"params": {"w": torch.ones(2, 3), "b": torch.zeros(())}, "buffers": {}}, "n": torch.tensor(4)}


def test_an_honest_update_has_no_problem() -> None:
    assert problem(honest(), 3.0, honest()) is None


def test_the_order_of_leaves_and_empty_branches_do_not_matter() -> None:
    theirs = {"n": torch.tensor(1), "delta": {"params": {"b": torch.ones(()), "w": torch.ones(2, 3)}}}
    assert problem(theirs, 1.0, honest()) is None


@pytest.mark.parametrize("weight", [0.0, -1.0, math.nan, math.inf, -math.inf])
def test_a_weight_is_a_positive_number(weight: float) -> None:
    assert problem(honest(), weight, honest()) == f"weight {weight} is not a positive number"


@pytest.mark.parametrize(
    ("leaf", "words"),
    [
        (torch.ones(3, 2), "delta/params/w has shape [3, 2], not [2, 3]"),
        (torch.ones(2, 3, dtype=torch.float64), "delta/params/w is torch.float64, not torch.float32"),
        (torch.full((2, 3), math.nan), "delta/params/w holds numbers that are not finite"),
        (torch.tensor([[0, 1, 2], [3, math.inf, 5]]), "delta/params/w holds numbers that are not finite"),
        (torch.tensor([[0, -math.inf, 2], [3, math.inf, 5]]), "delta/params/w holds numbers that are not finite"),
    ],
)
def test_a_wrong_leaf_is_named(leaf: torch.Tensor, words: str) -> None:
    theirs = honest()
    theirs["delta"]["params"]["w"] = leaf
    assert problem(theirs, 1.0, honest()) == words


def test_missing_and_foreign_leaves_are_named() -> None:
    theirs = honest()
    theirs["delta"]["params"]["v"] = theirs["delta"]["params"].pop("w")
    assert problem(theirs, 1.0, honest()) == "leaves differ from the model's: delta/params/v, delta/params/w"


def test_a_branch_in_place_of_a_leaf_is_named() -> None:
    theirs = honest()
    theirs["n"] = {"": theirs["n"]}
    assert problem(theirs, 1.0, honest()) == "leaves differ from the model's: n, n/"


@given(st.lists(st.floats(width=32), max_size=6))
def test_finite_means_every_entry(values: list[float]) -> None:
    assert tree.is_finite(torch.tensor(values)) is all(math.isfinite(v) for v in values)


def test_finite_numbers_whose_sum_overflows_are_finite() -> None:
    """3e38 is near float32's largest number, and 60000 near float16's."""
    assert tree.is_finite(torch.tensor([3e38, 3e38]))
    assert tree.is_finite(torch.tensor([60000.0, 60000.0], dtype=torch.float16))
    assert tree.is_finite(torch.tensor([1, 2]))
