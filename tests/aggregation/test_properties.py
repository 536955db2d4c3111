"""What holds for every rule: the order of clients, shifts and scales, and how far attackers can reach."""

from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from coterie.aggregation import AGGREGATORS, aggregation
from coterie.core.aggregators import Aggregator, Coordinatewise, Geometric, gram

F = 2
PARAMETERS: dict[str, dict[str, Any]] = {
    "mean": {},
    "median": {},
    "geometric_median": {},
    "centred_clipping": {"radius": 3.0, "iterations": 2},
} | {name: {"num_byzantine": F} for name in ("krum", "mda", "meamed", "multi_krum", "trimmed_mean")}
assert PARAMETERS.keys() == AGGREGATORS.keys()
ROBUST = sorted(PARAMETERS.keys() - {"mean", "centred_clipping"})
MIXED = {f"{name} after {step}": (name, step) for name in ROBUST for step in ("nnm", "arc")} | {
    "mean after arc": ("mean", "arc")  # not after nnm: the attackers' own mixtures hold one of them
}

rules = pytest.mark.parametrize("rule", [aggregation(n, **p) for n, p in PARAMETERS.items()], ids=PARAMETERS)
seeds = st.integers(0, 2**32)


def updates(seed: int, n: int = 8, d: int = 3) -> Tensor:
    """Float64 [n, d], no two of them equally far from anything."""
    return torch.randn(n, d, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def together(rule: Aggregator, x: Tensor) -> Tensor:
    return rule.reduce(x, [1.0] * len(x))


@rules
@given(seed=seeds, order=st.permutations(range(8)))
@settings(max_examples=20)
def test_the_order_of_clients_does_not_matter(rule: Aggregator, seed: int, order: list[int]) -> None:
    x = updates(seed)
    assert torch.allclose(together(rule, x[order]), together(rule, x), rtol=0, atol=1e-9)


@pytest.mark.parametrize("name", sorted(PARAMETERS.keys() - {"centred_clipping", "geometric_median"}))
@given(seed=seeds, shift=st.floats(-100, 100), scale=st.floats(0.01, 100))
@settings(max_examples=20)
def test_a_shift_and_a_scale_go_through(name: str, seed: int, shift: float, scale: float) -> None:
    """rule(a x + b) = a rule(x) + b. Centred clipping has a length and a zero of its own."""
    x, rule = updates(seed), aggregation(name, **PARAMETERS[name])
    assert torch.allclose(together(rule, scale * x + shift), scale * together(rule, x) + shift, atol=1e-6, rtol=1e-6)


@given(seed=seeds, shift=st.floats(-5, 5), scale=st.floats(0.1, 10))
@settings(max_examples=5)
def test_a_shift_and_a_scale_go_through_the_geometric_median_once_it_has_converged(
    seed: int, shift: float, scale: float
) -> None:
    x, rule = updates(seed, d=2), aggregation("geometric_median", smoothing=1e-9, iterations=1000)
    assert torch.allclose(together(rule, scale * x + shift), scale * together(rule, x) + shift, atol=1e-3)


@pytest.mark.parametrize("name", ["median", "trimmed_mean", "meamed"])
@given(seed=seeds, evil=st.lists(st.floats(-1e30, 1e30), min_size=F, max_size=F))
@settings(max_examples=30)
def test_coordinates_stay_within_those_of_the_honest(name: str, seed: int, evil: list[float]) -> None:
    """Whatever f of n > 2 f clients send, the median and the trimmed mean lie between the smallest and the largest
    honest value of each coordinate. Meamed, which may keep attackers that are near, stays as near to the median as the
    farthest honest value."""
    x = updates(seed)
    x[[1, 4]] = torch.tensor(evil, dtype=torch.float64)[:, None]
    honest = x[[0, 2, 3, 5, 6, 7]]
    low, high = honest.min(0).values, honest.max(0).values
    slack = (high - low) if name == "meamed" else 0.0
    result = together(aggregation(name, num_byzantine=F), x)
    assert (result >= low - slack - 1e-9).all()
    assert (result <= high + slack + 1e-9).all()


@pytest.mark.parametrize("name", ROBUST)
@given(seed=seeds, size=st.floats(1e3, 1e30))
@settings(max_examples=20)
def test_far_away_attackers_are_as_good_as_absent(name: str, seed: int, size: float) -> None:
    """The result lies no farther from the honest mean than the farthest honest update, times the constant that the
    geometric median needs: 2 (n - f) / (n - 2 f) = 3."""
    x = updates(seed)
    x[[1, 4]] = size
    honest = x[[0, 2, 3, 5, 6, 7]]
    reach = (honest - honest.mean(0)).norm(dim=1).max()
    parameters = PARAMETERS[name]
    assert (together(aggregation(name, **parameters), x) - honest.mean(0)).norm() <= 3 * reach


@given(seed=seeds, size=st.floats(1e3, 1e30))
def test_the_mean_goes_wherever_one_attacker_wants(seed: int, size: float) -> None:
    x = updates(seed)
    x[1] = size
    assert together(aggregation(), x).norm() > size / len(x) / 2


@pytest.mark.parametrize(("name", "step"), MIXED.values(), ids=MIXED)
@given(seed=seeds, size=st.floats(1e3, 1e20))
@settings(max_examples=10)
def test_steps_before_a_rule_keep_it_robust(name: str, step: str, seed: int, size: float) -> None:
    """A mixture of n - f updates holds attackers at most where it was made around one; adaptive clipping leaves no
    update longer than the k-th, k = floor(2 f (n - f) / n) = 3."""
    x = updates(seed)
    x[1], x[4] = size, -3 * size
    honest = x[[0, 2, 3, 5, 6, 7]]
    rule = aggregation(name, pre=[step], **{"num_byzantine": F} | PARAMETERS[name])
    assert together(rule, x).norm() <= 10 * honest.norm(dim=1).max()


@rules
@given(seed=seeds)
@settings(max_examples=10)
def test_updates_that_agree_are_their_own_aggregate(rule: Aggregator, seed: int) -> None:
    x = updates(seed, n=1, d=4).clamp(-1, 1).expand(7, 4)
    assert torch.allclose(together(rule, x), x[0], atol=1e-9)


@pytest.mark.parametrize("name", sorted(PARAMETERS.keys() - {"mean"}))
def test_coordinates_may_be_dealt_to_several_machines(name: str) -> None:
    """Two halves of the coordinates: the sum of their Gram matrices is the whole one, and coefficients found from it
    serve either half. Coordinate-wise rules need not even that."""
    x, rule = updates(5, d=6), aggregation(name, **PARAMETERS[name])
    halves = torch.split(x, 3, dim=1)
    if isinstance(rule, Geometric):
        c = rule.coefficients(gram(halves[0]) + gram(halves[1]))
        parts = [c @ half for half in halves]
    else:
        assert isinstance(rule, Coordinatewise)
        parts = [rule.rule(half) for half in halves]
    assert torch.allclose(torch.cat(parts), together(rule, x), rtol=0, atol=1e-12)
