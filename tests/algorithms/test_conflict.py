"""Two gradients that may conflict: what each rule promises, for any vectors, and the exact answer where it is known."""

from itertools import product

import hypothesis.strategies as st
import pytest
import torch
from hypothesis import given
from torch import Tensor

from coterie import Mistake
from coterie.algorithms.conflict import CONFLICTS, check_conflict, resolve_conflict
from coterie.core import tree
from coterie.core.tree import Tree

NUMBER = st.floats(-100, 100).map(lambda x: 0.0 if abs(x) < 1e-3 else x)
PAIR = st.integers(1, 6).flatmap(lambda d: st.tuples(*[st.lists(NUMBER, min_size=d, max_size=d)] * 2))
"""Two vectors of d numbers; exact zeros among them."""


def as_tree(numbers: list[float]) -> Tree:
    """A vector as the leaves of a model."""
    v = torch.tensor(numbers, dtype=torch.float64)
    return {"weight": v[:2].clone(), "bias": v[2:].clone()}


def flat(t: Tree) -> Tensor:
    return torch.cat(tree.leaves(t))


def both(rule: str, local: list[float], glob: list[float]) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """l, g, l' and g'."""
    own, shared = as_tree(local), as_tree(glob)
    after = resolve_conflict(rule, own, shared)
    return flat(own), flat(shared), flat(after[0]), flat(after[1])


@given(PAIR)
def test_the_projected_shared_step_never_raises_the_local_loss(pair):
    local, glob, own, z = both("project_global", *pair)
    assert z @ local >= -1e-6
    assert z.norm() <= glob.norm() + 1e-9
    assert torch.equal(own, local)
    if local @ glob >= 0:
        assert torch.equal(z, glob)


@given(PAIR, st.lists(NUMBER, min_size=6, max_size=6))
def test_it_is_the_nearest_that_does_not(pair, other):
    """No vector v with <v, l> >= 0 lies nearer to g."""
    local, glob, _, z = both("project_global", *pair)
    v = torch.tensor(other[: len(local)], dtype=torch.float64)
    v = v if v @ local >= 0 else -v
    assert (z - glob).norm() <= (v - glob).norm() + 1e-9


@given(PAIR)
def test_projecting_twice_changes_nothing(pair):
    local, _, _, z = both("project_global", *pair)
    again = both("project_global", local.tolist(), z.tolist())[3]
    assert torch.allclose(again, z, rtol=0, atol=1e-9)


@given(PAIR)
def test_the_other_way_round_is_the_same_with_names_exchanged(pair):
    local, glob = pair
    _, z = both("project_global", local, glob)[2:]
    own, shared = both("project_local", glob, local)[2:]
    assert torch.equal(own, z)
    assert torch.equal(shared, torch.tensor(local, dtype=torch.float64))


@given(PAIR)
def test_gem_is_the_solution_of_its_quadratic_programme(pair):
    """z = u + G'v with v >= 0 that solves the dual, found by trying all four active sets and keeping the z that is
    feasible and nearest to u."""
    local, glob, own, shared = both("gem", *pair)
    z, u, G = own + shared, local + glob, torch.stack([local, glob])
    assert (G @ z >= -1e-6).all()
    tried = []
    for active in product([False, True], repeat=2):
        rows = G[torch.tensor(active)]
        v = -torch.linalg.pinv(rows @ rows.T) @ (rows @ u) if len(rows) else torch.zeros(0, dtype=torch.float64)
        candidate = u + rows.T @ v
        if (G @ candidate >= -1e-6).all() and (v >= -1e-9).all():
            tried.append(candidate)
    nearest = min(tried, key=lambda c: float((c - u).norm()))
    assert (z - u).norm() <= (nearest - u).norm() + 1e-6


def test_gem_by_hand():
    """l = (1, 0), g = (-3, 4): u = (-2, 4) raises the local loss, and (0, 4) is the nearest that does not. With
    g = (-1/2, 1) u = (1/2, 1) raises neither."""
    for glob, z in (([-3.0, 4.0], [0.0, 4.0]), ([-0.5, 1.0], [0.5, 1.0])):
        own, shared = both("gem", [1.0, 0.0], glob)[2:]
        assert (own + shared).tolist() == z


@given(PAIR)
def test_without_a_rule_nothing_changes(pair):
    local, glob, own, shared = both("none", *pair)
    assert torch.equal(own, local)
    assert torch.equal(shared, glob)


@pytest.mark.parametrize("rule", CONFLICTS)
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_gradients_that_vanish(rule, dtype):
    some, nothing = {"w": torch.tensor([3.0, -4.0], dtype=dtype)}, {"w": torch.zeros(2, dtype=dtype)}
    for own, shared in ((some, nothing), (nothing, some), (nothing, nothing)):
        after = resolve_conflict(rule, own, shared)
        assert torch.equal(after[0]["w"], own["w"])
        assert torch.equal(after[1]["w"], shared["w"])


@pytest.mark.parametrize("rule", CONFLICTS)
def test_many_at_once_as_one_after_another(rule):
    glob = torch.Generator().manual_seed(0)
    own, shared = ({"w": torch.randn(20, 3, generator=glob)} for _ in range(2))
    together = torch.func.vmap(lambda a, b: resolve_conflict(rule, a, b))(own, shared)
    for i in range(20):
        alone = resolve_conflict(rule, {"w": own["w"][i]}, {"w": shared["w"][i]})
        for batched, single in zip(together, alone, strict=True):
            assert torch.allclose(batched["w"][i], single["w"], atol=1e-6)


def test_an_unknown_rule_is_a_mistake():
    with pytest.raises(Mistake, match=r'conflict = "project": it must be one of project_global, project_local'):
        check_conflict("project")
