"""Examples are views of a pool until someone asks for their numbers."""

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from coterie import Examples, Mistake
from coterie.core.examples import pool_examples

X = torch.arange(12.0).reshape(6, 2)
Y = torch.arange(6)
rows = st.lists(st.integers(0, 5), max_size=8)


def test_all_of_a_pool() -> None:
    examples = Examples(X, Y)
    assert len(examples) == 6
    x, y = examples.tensors()
    assert x is X
    assert y is Y
    assert examples.labels() is Y


@given(rows, st.data())
def test_rows_are_counted_within_the_examples(chosen: list[int], data: st.DataObject) -> None:
    """Example k is the pool's row `chosen[k]`, whole, in batches, and taken again."""
    examples = Examples(X, Y, torch.tensor(chosen, dtype=torch.int64))
    assert len(examples) == len(chosen)
    x, y = examples.tensors()
    assert y is not None
    assert y.tolist() == examples.labels().tolist() == chosen
    assert x.tolist() == [[2 * k, 2 * k + 1] for k in chosen]
    index = data.draw(st.lists(st.integers(0, len(chosen) - 1), max_size=4)) if chosen else []
    where = torch.tensor(index, dtype=torch.int64)
    batch_x, batch_y = examples.batch(where)
    assert batch_y is not None
    assert batch_y.tolist() == [chosen[i] for i in index]
    taken = examples.take(where)
    assert taken.x is X
    assert torch.equal(taken.tensors()[0], batch_x)


def test_examples_may_have_no_labels() -> None:
    examples = Examples(X, rows=torch.tensor([1, 3]))
    x, y = examples.batch(torch.tensor([1]))
    assert x.tolist() == [[6, 7]]
    assert y is None
    assert examples.tensors()[1] is None
    assert examples.labels() is None


def test_as_many_labels_as_examples() -> None:
    with pytest.raises(Mistake, match="x has 6 examples but y has 5"):
        Examples(X, Y[:5])


@given(st.lists(rows, min_size=1, max_size=4))
def test_pool_examples_joins_all_parts_one_after_another(parts: list[list[int]]) -> None:
    """Whether they share one pool, and then share it still, or have memory of their own."""
    shared = [Examples(X, Y, torch.tensor(part, dtype=torch.int64)) for part in parts]
    apart = [Examples(*part.tensors()) for part in shared]
    expected = [row for part in parts for row in part]
    assert pool_examples(shared).x is X
    for together in (pool_examples(shared), pool_examples(apart), pool_examples([*apart[:1], *shared[1:]])):
        x, y = together.tensors()
        assert y is not None
        assert y.tolist() == expected
        assert x.tolist() == [[2 * k, 2 * k + 1] for k in expected]


def test_two_whole_pools_are_joined() -> None:
    assert len(pool_examples([Examples(X, Y), Examples(X, Y)])) == 12
    assert pool_examples([Examples(X), Examples(X)]).y is None


def test_labels_are_not_dropped_because_some_are_missing() -> None:
    with pytest.raises(Mistake, match="1 of 3 sets of examples have no labels"):
        pool_examples([Examples(X, Y), Examples(X), Examples(X, Y)])


def test_nothing_cannot_be_pooled() -> None:
    with pytest.raises(Mistake, match="there are no examples"):
        pool_examples([])


def test_arrays_of_other_libraries_become_tensors() -> None:
    """A frame of columns of one type, a column, arrays, and one that is read only."""
    x = np.arange(6.0).reshape(3, 2)
    y = np.array([0, 1, 1])
    fixed = x.copy()
    fixed.flags.writeable = False
    for made in (Examples(x, y), Examples(fixed, torch.as_tensor(y))):
        assert torch.equal(made.x, torch.as_tensor(x))
        assert torch.equal(made.tensors()[1], torch.tensor([0, 1, 1]))
    with pytest.raises(Mistake, match="x: it holds object, not numbers of one type"):
        Examples(np.array([["a", 1]], dtype=object), y)
    with pytest.raises(Mistake, match="x: it is of type list; it must be a tensor"):
        Examples([[1.0]])
    pandas = pytest.importorskip("pandas")
    frame = pandas.DataFrame({"age": [1.0, 2.0, 3.0], "dose": [0.5, 0.1, 0.2], "answer": y})
    made = Examples(frame[["age", "dose"]], frame["answer"])
    assert torch.equal(made.x, torch.tensor([[1.0, 0.5], [2.0, 0.1], [3.0, 0.2]], dtype=torch.float64))
    assert made.y is not None
    assert made.y.dtype == torch.int64
