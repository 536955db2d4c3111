"""Trees: round trips, arithmetic, and memory."""

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

from coterie.core import tree
from coterie.core.tree import Tree

names = st.text(alphabet="ab/~01é.", max_size=4)
numbers = st.lists(st.integers(-9, 9), min_size=1, max_size=3).map(lambda v: torch.tensor(v, dtype=torch.float64))
branches = st.recursive(numbers, lambda inner: st.dictionaries(names, inner, max_size=3), max_leaves=6)
trees = st.dictionaries(names, branches, max_size=3)


def same(a: Tree, b: Tree) -> bool:
    """Equal in keys, their order and leaves."""
    if not isinstance(a, dict) or not isinstance(b, dict):
        return isinstance(a, Tensor) and isinstance(b, Tensor) and a.dtype == b.dtype and torch.equal(a, b)
    return list(a) == list(b) and all(same(a[name], b[name]) for name in a)


def vector(t: Tree) -> Tensor:
    """All leaves as one vector [d]."""
    return torch.cat([torch.zeros(0, dtype=torch.float64), *(leaf.reshape(-1) for leaf in tree.leaves(t))])


@given(trees)
def test_what_was_flattened_is_arranged_again_in_its_order(t: Tree) -> None:
    flat = tree.flatten(t)
    assert len(flat) == len(tree.leaves(t))
    shuffled = dict(sorted(flat.items(), reverse=True))
    assert same(tree.unflatten(shuffled, tree.structure(t)), t)


def test_a_name_is_a_json_pointer() -> None:
    """RFC 6901: ~ is ~0, / is ~1, in this order; a layer called "a/b" and a branch a with a leaf b stay two."""
    one = torch.tensor(1)
    assert list(tree.flatten({"a/b": one, "a": {"b": one, "~1": one, "": one}})) == ["a~1b", "a/b", "a/~01", "a/"]


def test_a_missing_leaf_is_an_error() -> None:
    with pytest.raises(KeyError, match="a/c"):
        tree.unflatten({"a/b": torch.tensor(1)}, {"a": {"b": None, "c": None}})


@given(trees)
def test_a_clone_is_equal_and_shares_no_memory(t: Tree) -> None:
    shared = torch.arange(4, dtype=torch.float64)
    t = {**t, "views": {"one": shared[:2], "other": shared[1:], "expanded": shared[:1].expand(3)}}
    copy = tree.clone(t)
    assert same(copy, t)
    held = [leaf.untyped_storage().data_ptr() for leaf in tree.leaves(copy)]
    assert len(set(held)) == len(held)
    assert not set(held) & {leaf.untyped_storage().data_ptr() for leaf in tree.leaves(t)}


def test_a_clone_is_cut_off_from_the_gradient() -> None:
    leaf = torch.ones(2, requires_grad=True)
    assert not tree.clone({"a": leaf * 2})["a"].requires_grad


@given(trees, st.floats(-3, 3))
def test_arithmetic_is_that_of_one_flat_vector(a: Tree, factor: float) -> None:
    b = tree.map(lambda x: x * 2 - 1, a)
    flat_a, flat_b = vector(a), vector(b)
    expected = flat_a + factor * flat_b  # rounded twice, where a fused addition rounds once
    assert torch.allclose(vector(tree.add(a, b, factor)), expected, rtol=1e-12, atol=1e-12)
    by_tensor = vector(tree.add(a, b, torch.tensor(factor, dtype=torch.float64)))
    assert torch.allclose(by_tensor, expected, rtol=1e-12, atol=1e-12)
    assert torch.equal(vector(tree.sub(a, b)), flat_a - flat_b)
    assert torch.equal(vector(tree.scale(a, factor)), flat_a * factor)
    assert torch.allclose(tree.dot(a, b).double(), flat_a @ flat_b, rtol=1e-12)
    assert torch.allclose(tree.norm(a).double(), torch.linalg.vector_norm(flat_a), rtol=1e-12)
    assert tree.nbytes(a) == 8 * len(flat_a)
    assert torch.equal(vector(tree.zeros_like(a)), torch.zeros_like(flat_a))


def test_leaves_are_paired_by_name_not_by_order() -> None:
    """1 * 3 + 2 * 4, although the second tree lists its leaves the other way round."""
    a = {"x": torch.tensor(1.0), "y": torch.tensor(2.0)}
    b = {"y": torch.tensor(4.0), "x": torch.tensor(3.0)}
    assert tree.dot(a, b) == 11
    assert tree.sub(a, b) == {"x": -2, "y": -2}


def test_a_tree_without_leaves_has_norm_zero() -> None:
    assert tree.norm({}) == 0
    assert tree.norm({"buffers": {}}) == 0


def test_a_tree_may_be_one_leaf() -> None:
    table = torch.tensor([3.0, 4.0])
    assert torch.equal(tree.add(table, table), 2 * table)
    assert tree.norm(table) == 5
    assert tree.flatten(table) == {"": table}


def test_stacked_and_unstacked_again() -> None:
    parts = [{"a": torch.full((2,), float(k)), "b": {"c": torch.tensor(k)}} for k in range(3)]
    stacked = tree.stack(parts)
    assert stacked["a"].shape == (3, 2)
    assert all(same(one, other) for one, other in zip(tree.unstack(stacked, 3), parts, strict=True))


def test_floats_leaves_integers_out_and_keeps_branches() -> None:
    t = {"mean": torch.ones(2), "count": torch.tensor(3), "inner": {"flag": torch.tensor(True)}}
    assert list(tree.flatten(tree.floats(t))) == ["mean"]
    assert tree.floats(t)["inner"] == {}


def test_merge_puts_changes_in_their_places() -> None:
    base = {"a": {"x": torch.tensor(1), "y": torch.tensor(2)}, "b": torch.tensor(3)}
    merged = tree.merge(base, {"a": {"y": torch.tensor(9)}})
    assert merged == {"a": {"x": 1, "y": 9}, "b": 3}
    assert base["a"]["y"] == 2
