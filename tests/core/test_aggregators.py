"""Aggregators against direct computation, and what holds for all of them."""

from collections.abc import Callable
from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

from coterie.core import aggregators, tree
from coterie.core.aggregators import (
    Aggregator,
    Composite,
    Coordinatewise,
    Geometric,
    Mixed,
    Mixing,
    Sum,
)
from coterie.core.tree import Tree


def median(matrix: Tensor) -> Tensor:
    return matrix.median(0).values


def nearest_to_the_others(gram: Tensor) -> Tensor:
    """The medoid: all weight on the update with the least sum of squared distances."""
    squares = gram.diagonal()
    distances = squares[:, None] + squares[None, :] - 2 * gram
    return torch.nn.functional.one_hot(distances.sum(1).argmin(), len(gram)).to(gram.dtype)


def spread(updates: list[Tree], combine: aggregators.Combine) -> Tree:
    """Two stages, the second of which needs the first: a centre, and the combined squared distance to it."""
    centre = combine(updates)
    gaps = combine([tree.map(lambda u, m: (u - m) ** 2, update, centre) for update in updates])
    return {"centre": centre, "gap": gaps}


KINDS: dict[str, Aggregator] = {
    "sum": Sum(),
    "coordinatewise": Coordinatewise(median),
    "geometric": Geometric(nearest_to_the_others),
    "composite of sum": Composite(spread, Sum()),
    "composite of median": Composite(spread, Coordinatewise(median)),
}
every_kind = pytest.mark.parametrize("kind", KINDS.values(), ids=KINDS)

numbers = st.floats(-100, 100, width=32)
cohorts = st.integers(1, 6).flatmap(
    lambda n: st.tuples(
        st.lists(st.lists(numbers, min_size=5, max_size=5), min_size=n, max_size=n),
        st.lists(st.floats(0.5, 50), min_size=n, max_size=n),
    )
)


def update(values: Any, dtype: torch.dtype = torch.float64) -> Tree:
    """Five numbers as two leaves in two branches."""
    v = torch.as_tensor(values, dtype=dtype)
    return {"params": {"w": v[:4].reshape(2, 2)}, "b": v[4]}


def vector(t: Tree) -> Tensor:
    return torch.cat([leaf.reshape(-1) for leaf in tree.leaves(t)])


def at_once(kind: Aggregator, updates: list[Tree], weights: list[float]) -> Tree:
    return kind.combine(updates, weights)


def streamed(kind: Aggregator, updates: list[Tree], weights: list[float]) -> Tree:
    total = kind.accumulator()
    for one, weight in zip(updates, weights, strict=True):
        total.add(one, weight)
    return total.result()


@given(cohorts)
def test_the_sum_is_the_weighted_mean(cohort: tuple[list[list[float]], list[float]]) -> None:
    """sum_i p_i u_i / sum_i p_i, as one product of a vector and a matrix."""
    values, weights = cohort
    p, matrix = torch.tensor(weights, dtype=torch.float64), torch.tensor(values, dtype=torch.float64)
    expected = p @ matrix / p.sum()
    for way in (at_once, streamed):
        assert torch.allclose(vector(way(Sum(), [update(v) for v in values], weights)), expected, atol=1e-10)


@given(cohorts)
def test_the_mean_lies_in_the_convex_hull(cohort: tuple[list[list[float]], list[float]]) -> None:
    """Within the smallest and the largest value of every coordinate, and no further from any point than the furthest
    update is."""
    values, weights = cohort
    mean = vector(Sum().combine([update(v) for v in values], weights))
    matrix = torch.tensor(values, dtype=torch.float64)
    assert (mean >= matrix.min(0).values - 1e-9).all()
    assert (mean <= matrix.max(0).values + 1e-9).all()
    point = torch.arange(5, dtype=torch.float64)
    assert (mean - point).norm() <= (matrix - point).norm(dim=1).max() + 1e-9


@every_kind
@given(cohort=cohorts, order=st.randoms(use_true_random=False))
def test_the_order_of_updates_changes_rounding_at_most(kind: Aggregator, cohort: Any, order: Any) -> None:
    values, weights = cohort
    places = list(range(len(values)))
    order.shuffle(places)
    straight = kind.combine([update(v) for v in values], weights)
    other = kind.combine([update(values[i]) for i in places], [weights[i] for i in places])
    if isinstance(kind, Geometric):  # two updates may be equally near; which of them is chosen is free
        total = [float((torch.tensor(values) - vector(m)).square().sum()) for m in (straight, other)]
        assert total[0] == pytest.approx(total[1], rel=1e-6, abs=1e-6)
    else:
        assert torch.allclose(vector(straight), vector(other), rtol=1e-9, atol=1e-9)


def test_sum_holds_one_tree_however_many_updates_come() -> None:
    """Bytes held by its tensors after 1 and after 100 updates."""
    total = Sum().accumulator()
    held = []
    for k in range(100):
        total.add(update([k] * 5), 1.0)
        held.append(sum(tree.nbytes(v) for v in vars(total).values() if isinstance(v, dict)))
    assert held[0] == held[-1] == 5 * 8
    assert torch.equal(vector(total.result()), torch.full((5,), 49.5, dtype=torch.float64))


def test_coordinatewise_sees_every_number_of_every_client() -> None:
    """The median of three, coordinate by coordinate, whatever the weights."""
    values = [[1.0, 5, 3, 0, -1], [2, 4, 9, 0, 7], [3, 6, 1, 0, 2]]
    result = Coordinatewise(median).combine([update(v) for v in values], [1.0, 100.0, 1.0])
    assert vector(result).tolist() == [2, 5, 3, 0, 2]
    assert result["params"]["w"].shape == (2, 2)
    assert result["b"].shape == ()


def test_geometric_is_given_the_inner_products() -> None:
    values = [[1.0, 0, 2, 0, 0], [0, 1, 1, 0, 3], [1, 1, 1, 1, 1]]
    seen: list[Tensor] = []

    def first_two_evenly(gram: Tensor) -> Tensor:
        seen.append(gram)
        return torch.tensor([0.5, 0.5, 0.0])

    result = Geometric(first_two_evenly).combine([update(v) for v in values], [1.0, 9.0, 9.0])
    assert seen[0].tolist() == [[5, 2, 3], [2, 11, 5], [3, 5, 5]]
    assert vector(result).tolist() == [0.5, 0.5, 1.5, 0, 1.5]


def test_distances_of_nearly_equal_updates_do_not_cancel() -> None:
    """Two updates near 100 and 2^-10 apart in each of 1000 numbers: the squared distance is 1000 * 2^-20, about 0.001,
    where the inner products are 1e7, which float32 knows to the nearest whole number.
    """
    a = torch.full((1000,), 100.0)
    gram = aggregators.gram(torch.stack([a, a + 2.0**-10]))
    assert float(gram[0, 0] + gram[1, 1] - 2 * gram[0, 1]) == pytest.approx(1000 * 2.0**-20, rel=1e-4)


def test_a_matrix_wider_than_a_block_is_summed_block_by_block() -> None:
    matrix = torch.arange(3.0)[:, None].expand(3, 2**20 + 5)
    assert aggregators.gram(matrix).tolist() == [[i * j * (2**20 + 5) for j in range(3)] for i in range(3)]


def test_leaves_in_another_order_are_the_same_update() -> None:
    """A payload may sort names. The median of 1, 2, 3 and of 10, 20, 30, not of one with the other."""
    updates = [
        {"a": torch.tensor([1.0]), "b": torch.tensor([10.0])},
        {"b": torch.tensor([20.0]), "a": torch.tensor([2.0])},
        {"a": torch.tensor([3.0]), "b": torch.tensor([30.0])},
    ]
    for kind in (Sum(), Coordinatewise(median), Geometric(nearest_to_the_others)):
        assert kind.combine(updates, [1.0, 1.0, 1.0]) == {"a": 2.0, "b": 20.0}


def test_each_leaf_keeps_its_type() -> None:
    updates = [{"a": torch.ones(2) * k, "b": torch.ones(1, dtype=torch.float64) * k} for k in range(3)]
    for kind in (Sum(), Coordinatewise(median), Geometric(nearest_to_the_others)):
        result = kind.combine(updates, [1.0, 1.0, 1.0])
        assert (result["a"].dtype, result["b"].dtype) == (torch.float32, torch.float64)


def test_a_composite_reduces_in_stages_with_its_inner_rule() -> None:
    """Weights 1 and 3 of 0 and 4: the centre is 3, the mean squared distance (1 * 9 + 3 * 1) / 4 = 3; the lower
    median of both is 0, and of the distances 0 and 16 it is 0."""
    updates = [{"a": torch.tensor([0.0])}, {"a": torch.tensor([4.0])}]
    assert (Composite(spread, Sum())).combine(updates, [1.0, 3.0]) == {"centre": {"a": 3.0}, "gap": {"a": 3.0}}
    by_median = (Composite(spread, Coordinatewise(median))).combine(updates, [1.0, 3.0])
    assert by_median == {"centre": {"a": 0.0}, "gap": {"a": 0.0}}


@every_kind
@pytest.mark.parametrize("way", [at_once, streamed])
def test_no_memory_is_shared(kind: Aggregator, way: Callable[..., Tree]) -> None:
    """Neither among the leaves of the result, nor with the updates, which stay as they were."""
    updates = [update([k, k + 1, -k, 0, k * k]) for k in range(1, 4)]
    before = [tree.clone(u) for u in updates]
    result = way(kind, updates, [1.0, 2.0, 3.0])
    held = [leaf.untyped_storage().data_ptr() for leaf in tree.leaves(result)]
    assert len(set(held)) == len(held)
    assert not set(held) & {leaf.untyped_storage().data_ptr() for u in updates for leaf in tree.leaves(u)}
    for leaf in tree.leaves(result):
        leaf.fill_(1e9)
    assert all(torch.equal(vector(u), vector(b)) for u, b in zip(updates, before, strict=True))


@every_kind
def test_a_single_update_is_its_own_aggregate(kind: Aggregator) -> None:
    only = update([1.0, -2, 3, 0, 5])
    result = kind.combine([only], [7.0])
    centre = result["centre"] if isinstance(kind, Composite) else result
    assert torch.allclose(vector(centre), vector(only))


def test_an_update_may_be_one_table() -> None:
    tables = [torch.full((2, 3), float(k)) for k in range(3)]
    for kind in (Sum(), Coordinatewise(median), Geometric(nearest_to_the_others)):
        assert torch.equal(kind.combine(tables, [1.0, 1.0, 1.0]), tables[1])


def shift_and_pair(gram: Tensor, key: Tensor) -> Tensor:
    """Means of neighbours 0 and 1, and 1 and 2."""
    return torch.tensor([[0.5, 0.5, 0.0], [0.0, 0.5, 0.5]], dtype=torch.float64)


def test_a_rule_sees_what_mixings_leave() -> None:
    """Of 0, 2 and 10 the pairs' means are 1 and 6: their mean is 3.5, their lower median 1, and with all weight on the
    shorter one the rule gives 1."""
    updates = [{"a": torch.tensor([v])} for v in (0.0, 2.0, 10.0)]

    def shorter(gram: Tensor) -> Tensor:
        assert gram.tolist() == [[1, 6], [6, 36]]
        return torch.tensor([1.0, 0.0], dtype=torch.float64)

    for inner, expected in ((Sum(), 3.5), (Coordinatewise(median), 1.0), (Geometric(shorter), 1.0)):
        kind = Mixed((Mixing(shift_and_pair),), inner)
        for way in (at_once, streamed):
            assert way(kind, updates, [1.0, 5.0, 9.0]) == {"a": expected}


def test_a_chain_of_mixings_runs_from_first_to_last_with_keys_of_their_own() -> None:
    """Pairs' means 1 and 6, then the longer one alone: 6. The second mixing sees the first one's Gram matrix."""
    keys = []

    def longer(gram: Tensor, key: Tensor) -> Tensor:
        keys.append(int(key))
        return torch.eye(len(gram), dtype=torch.float64)[gram.diagonal().argmax()][None]

    updates = [{"a": torch.tensor([v])} for v in (0.0, 2.0, 10.0)]
    chain = Mixed((Mixing(shift_and_pair), Mixing(longer), Mixing(longer)), Sum())
    assert chain.combine(updates, [1.0] * 3, torch.tensor(7)) == {"a": 6.0}
    assert len(set(keys)) == 2


def test_a_wide_matrix_is_treated_block_by_block() -> None:
    matrix = torch.arange(3.0)[:, None] + torch.arange(2**20 + 5)
    assert torch.equal(Coordinatewise(median).reduce(matrix, [1.0] * 3), matrix[1])
