"""Faults come as often as asked for, and what they do to an update is caught and named."""

import re
from collections import Counter
from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from coterie import Mistake
from coterie.core import tree
from coterie.loop.check_update import problem
from coterie.loop.faults import Faults, corrupt_payload

UPDATE = {
    "delta": {"params": {"a/b.weight": torch.ones(2, 3), "bias": torch.zeros(())}, "buffers": {}},
    "counts": torch.tensor([1, 2]),
}


def test_each_fault_comes_as_often_as_asked_for() -> None:
    """20000 draws: a share p has a standard error of sqrt(p (1 - p) / 20000), here at most 0.0033; six of them."""
    faults = Faults(drop=0.1, straggle=0.2, corrupt=0.3)
    found = Counter(faults.of(0, round, str(client)) for round in range(200) for client in range(100))
    for what, share in {"drop": 0.1, "straggle": 0.2, "corrupt": 0.3, None: 0.4}.items():
        assert abs(found[what] / 20000 - share) < 0.02, what


def test_what_befalls_a_client_depends_on_seed_round_and_client_alone() -> None:
    faults = Faults(drop=0.5)
    drawn = [(seed, round, client) for seed in range(8) for round in range(1, 9) for client in "abcdefgh"]
    straight = {who: faults.of(*who) for who in drawn}
    assert {who: faults.of(*who) for who in reversed(drawn)} == straight
    seeds, rounds, clients = drawn[:: 8 * 8], drawn[: 8 * 8 : 8], drawn[:8]
    for varied in (seeds, rounds, clients):
        assert {straight[who] for who in varied} == {"drop", None}


def test_without_faults_nothing_happens() -> None:
    assert {Faults().of(0, round, "a") for round in range(100)} == {None}
    assert {Faults(straggle=1.0).of(0, round, "a") for round in range(100)} == {"straggle"}


@pytest.mark.parametrize("value", [-0.1, 1.1, float("nan")])
@pytest.mark.parametrize("name", ["drop", "straggle", "corrupt"])
def test_a_probability_out_of_range_is_named(name: str, value: float) -> None:
    with pytest.raises(Mistake, match=re.escape(f"{name} = {value}: it must be a probability")):
        Faults(**{name: value})


def test_probabilities_add_up_to_one_at_most() -> None:
    Faults(drop=0.7, straggle=0.2, corrupt=0.1)  # 1.0 but for rounding
    with pytest.raises(Mistake, match=re.escape("drop + straggle + corrupt = 1.1")):
        Faults(drop=0.7, straggle=0.3, corrupt=0.1)


@given(st.integers(0, 10**6))
def test_every_corruption_is_caught(seed: int) -> None:
    update, weight = corrupt_payload(UPDATE, 3.0, seed)
    assert problem(update, weight, UPDATE) is not None


def test_every_kind_of_corruption_occurs_and_is_named_for_what_it_is() -> None:
    """The kinds of `corrupt_payload`, by the words of `problem`. Integers cannot be nan; such a leaf is cut short."""
    words = {
        "nan or infinity": r"delta/params/(a~1b\.weight|bias) holds numbers that are not finite",
        "shape": r"delta/params/a~1b\.weight has shape \[7\], not \[2, 3\]",
        "shape of a number": r"delta/params/bias has shape \[2\], not \[\]",
        "cut short": r"counts has shape \[0\], not \[2\]",
        "dtype": r"counts is torch.complex64, not torch.int64",
        "missing": r"leaves differ from the model's: delta/params/a~1b\.weight",
        "zero": "weight 0.0 is not a positive number",
        "negative": "weight -1.0 is not a positive number",
        "no number": "weight nan is not a positive number",
        "endless": "weight inf is not a positive number",
    }
    said = {str(problem(*corrupt_payload(UPDATE, 3.0, "kinds", k), UPDATE)) for k in range(400)}
    for kind, pattern in words.items():
        assert any(re.fullmatch(pattern, sentence) for sentence in said), kind


def test_corruption_is_drawn_by_purpose_and_leaves_the_update_alone() -> None:
    before = tree.clone(UPDATE)
    outcomes = [[problem(*corrupt_payload(UPDATE, 3.0, k), UPDATE) for k in range(50)] for _ in range(2)]
    assert outcomes[0] == outcomes[1]
    assert problem(UPDATE, 3.0, before) is None
    assert all(torch.equal(a, b) for a, b in zip(tree.leaves(UPDATE), tree.leaves(before), strict=True))


@pytest.mark.parametrize("update", [{}, {"delta": {}}, {"delta": torch.zeros(0)}])
def test_an_update_without_numbers_can_be_corrupt_too(update: dict[str, Any]) -> None:
    for k in range(30):
        assert problem(*corrupt_payload(update, 1.0, k), update) is not None


def test_only_one_leaf_differs() -> None:
    """What is not damaged arrives as it was, in its place."""
    for k in range(100):
        update, _ = corrupt_payload(UPDATE, 3.0, k)
        assert list(update) == ["delta", "counts"] or "counts" not in update
        ours = tree.flatten(UPDATE)
        changed = [name for name, leaf in tree.flatten(update).items() if leaf is not ours[name]]
        assert len(changed) + len(ours) - len(tree.flatten(update)) <= 1
