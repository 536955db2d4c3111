"""The largest entries with error feedback: what is sent and kept adds up, and hostile payloads are found."""

import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from coterie import Mistake
from coterie.core import rng, tree
from coterie.core.codecs.subtrees import on_subtrees
from coterie.core.codecs.top_k import top_k
from coterie.core.packing import pack, unpack
from coterie.core.tree import Tree
from coterie.loop.check_update import problem

KEY = rng.key("top k")


def parts(numbers: list[int]) -> Tree:
    x = torch.tensor(numbers, dtype=torch.float64)
    return {"a": x[:6].reshape(2, 3), "b": {"c": x[6:7].reshape(()), "d": x[7:]}}


@given(st.lists(st.lists(st.integers(-100, 100), min_size=10, max_size=10), min_size=1, max_size=8), st.floats(0.01, 1))
@settings(max_examples=100, deadline=None)
def test_what_was_sent_and_what_is_kept_add_up_to_the_updates(rounds: list[list[int]], share: float) -> None:
    """In whole numbers the identity is exact."""
    codec = top_k(share)
    state, total, arrived = codec.init(parts([0] * 10)), torch.zeros(10), torch.zeros(10)
    for numbers in rounds:
        payload, state = codec.encode(parts(numbers), state, KEY)
        update = codec.decode(unpack(pack(payload)))
        assert tree.structure(update) == tree.structure(parts(numbers))
        flat = torch.cat([leaf.reshape(-1) for leaf in tree.leaves(update)])
        assert int((flat != 0).sum()) <= math.ceil(share * 10)
        total, arrived = total + torch.tensor(numbers), arrived + flat
    assert torch.equal(arrived + state["residual"], total.to(torch.float64))


def test_two_rounds_by_hand() -> None:
    """Of (3, -5, 1, 2), -5 travels. The next round wants (1, 1, 1, 1) + (3, 0, 1, 2) = (4, 1, 2, 3), and 4 travels."""
    codec = top_k(0.25)
    first, state = codec.encode({"w": torch.tensor([3.0, -5.0, 1.0, 2.0])}, codec.init({"w": torch.zeros(4)}), KEY)
    assert (first["places"].tolist(), first["values"].tolist()) == ([1], [-5.0])
    assert state["residual"].tolist() == [3, 0, 1, 2]
    second, state = codec.encode({"w": torch.ones(4)}, state, KEY)
    assert codec.decode(second)["w"].tolist() == [4, 0, 0, 0]
    assert state["residual"].tolist() == [0, 1, 2, 3]
    assert tree.nbytes(second) == 4 + 4


def test_of_equals_the_first_ones_travel() -> None:
    codec, x = top_k(0.5), torch.tensor([1.0, -1.0, 1.0, 0.0, 2.0, 1.0])
    payload, _ = codec.encode({"w": x}, codec.init({"w": x}), KEY)
    assert payload["places"].tolist() == [0, 1, 4]


def test_all_of_it_arrives_with_share_1() -> None:
    codec, update = top_k(1.0), parts([1, 0, -3, 4, 5, 6, 7, 0, 9, 2])
    payload, state = codec.encode(update, codec.init(update), KEY)
    after = codec.decode(payload)
    assert all(torch.equal(x, y) for x, y in zip(tree.leaves(after), tree.leaves(update), strict=True))
    assert not state["residual"].any()


@pytest.mark.parametrize("bad", [float("nan"), float("inf")])
def test_numbers_that_are_not_finite_travel_so_that_the_server_sees_them(bad: float) -> None:
    codec, x = top_k(0.3), torch.tensor([1e30, 2.0, 3.0, bad, 5.0, bad])
    template, _ = codec.encode({"w": torch.zeros(6)}, codec.init({"w": x}), KEY)
    payload, _ = codec.encode({"w": x}, codec.init({"w": x}), KEY)
    assert problem(payload, 1.0, template) == "values holds numbers that are not finite"


def test_places_and_shapes_of_a_stranger_are_refused() -> None:
    codec = top_k(0.5)
    honest, _ = codec.encode({"w": torch.rand(2, 3)}, codec.init({"w": torch.rand(2, 3)}), KEY)
    assert codec.problem(honest) is None
    for places in ([0, 1, 6], [-1, 2, 3]):
        hostile = {**honest, "places": torch.tensor(places, dtype=torch.int32)}
        assert problem(hostile, 1.0, honest) is None
        assert codec.problem(hostile) == "names places that the model does not have"
    for places in ([1, 1, 2], [2, 1, 3], [0, 9, 2]):
        hostile = {**honest, "places": torch.tensor(places, dtype=torch.int32)}
        assert "twice" in str(codec.problem(hostile))
    wide = {**honest, "shapes": {"w": torch.empty(0, 10**6, 10**6)}}
    assert "has shape" in str(problem(wide, 1.0, honest))


def test_on_subtrees_the_rest_is_unchanged_and_an_absent_one_keeps_its_state() -> None:
    codec = on_subtrees(top_k(0.5), [("delta", "params")])
    update = {"delta": {"params": {"w": torch.tensor([1.0, 4.0])}, "buffers": {"v": torch.tensor(2.0)}}}
    payload, state = codec.encode(update, codec.init(update), KEY)
    assert payload["delta"]["buffers"] is update["delta"]["buffers"]
    assert state["delta/params"]["residual"].tolist() == [1, 0]
    measured = {"statistics": {"mean": torch.ones(1)}}
    assert codec.encode(measured, state, KEY) == (measured, state)
    assert codec.decode(payload)["delta"]["params"]["w"].tolist() == [0, 4]
    bad = {"places": torch.tensor([5], dtype=torch.int32)}
    hostile = {"delta": {**payload["delta"], "params": {**payload["delta"]["params"], **bad}}}
    assert codec.problem(hostile) == "delta/params names places that the model does not have"


@pytest.mark.parametrize("share", [0, -0.1, 1.5, float("nan")])
def test_other_shares_are_refused(share: float) -> None:
    with pytest.raises(Mistake, match="share"):
        top_k(share)


def test_whole_numbers_are_refused() -> None:
    with pytest.raises(Mistake, match="whole numbers"):
        top_k(0.5).init({"n": torch.tensor([1])})
