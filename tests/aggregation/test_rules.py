"""Each rule against its formula written out, and against ByzFL."""

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from coterie.aggregation import AGGREGATORS, aggregation
from coterie.core.aggregators import Sum
from tests.aggregation import plain
from tests.aggregation.byzfl import oracle

SIZES = [(3, 1), (5, 1), (5, 2), (10, 2), (10, 4), (11, 3)]
every_size = pytest.mark.parametrize(("n", "f"), SIZES)


def rows(n: int, d: int = 6, key: int = 0) -> Tensor:
    """Float64 [n, d], of which the last two are far away."""
    x = torch.randn(n, d, generator=torch.Generator().manual_seed(key + 100 * n), dtype=torch.float64)
    x[-2:] += 7
    return x


def ours(name: str, x: Tensor, **parameters: Any) -> np.ndarray:
    return aggregation(name, **parameters).reduce(x, [1.0] * len(x)).numpy()


# name -> (our parameters, by the formula, ByzFL's class and arguments), each from f
RULES: dict[str, tuple[Callable, Callable, Callable]] = {
    "median": (lambda f: {}, lambda x, f: plain.median(x), lambda f: ("Median", {})),
    "trimmed_mean": (lambda f: {"num_byzantine": f}, plain.trimmed_mean, lambda f: ("TrMean", {"f": f})),
    "meamed": (lambda f: {"num_byzantine": f}, plain.meamed, lambda f: ("Meamed", {"f": f})),
    "krum": (
        lambda f: {"num_byzantine": f},
        lambda x, f: plain.multi_krum(x, 1, len(x) - f - 1),
        lambda f: ("Krum", {"f": f}),
    ),
    "multi_krum": (
        lambda f: {"num_byzantine": f},
        lambda x, f: plain.multi_krum(x, len(x) - f, len(x) - f - 1),
        lambda f: ("MultiKrum", {"f": f}),
    ),
    "mda": (lambda f: {"num_byzantine": f}, plain.mda, lambda f: ("MDA", {"f": f})),
    "geometric_median": (
        lambda f: {"smoothing": 0.1, "iterations": 3},
        lambda x, f: plain.geometric_median(x, 0.1, 3),
        lambda f: ("GeometricMedian", {"nu": 0.1, "T": 3}),
    ),
    "centred_clipping": (
        lambda f: {"radius": 2.0, "iterations": 3},
        lambda x, f: plain.centred_clipping(x, 2.0, 3),
        lambda f: ("CenteredClipping", {"L": 3, "tau": 2.0}),
    ),
}


def test_every_rule_has_an_oracle() -> None:
    assert RULES.keys() | {"mean"} == AGGREGATORS.keys()


@pytest.mark.parametrize("name", RULES)
@every_size
@pytest.mark.parametrize("key", range(3))
def test_the_formula(name: str, n: int, f: int, key: int) -> None:
    x = rows(n, key=key)
    parameters, formula, _ = RULES[name]
    np.testing.assert_allclose(ours(name, x, **parameters(f)), formula(list(x.numpy()), f), rtol=0, atol=1e-9)


@pytest.mark.parametrize("name", RULES)
@every_size
def test_byzfl_agrees(name: str, n: int, f: int) -> None:
    x = rows(n)
    parameters, _, theirs = RULES[name]
    class_name, arguments = theirs(f)
    rule = getattr(oracle("aggregators"), class_name)(**arguments)
    np.testing.assert_allclose(ours(name, x, **parameters(f)), rule(x.numpy()), rtol=0, atol=1e-9)


@pytest.mark.parametrize("name", ["krum", "multi_krum"])
@pytest.mark.parametrize(("n", "f"), [(5, 1), (7, 2), (10, 2), (11, 4)])
def test_krum_with_the_neighbours_of_its_first_paper(name: str, n: int, f: int) -> None:
    x = rows(n)
    best = 1 if name == "krum" else n - f
    expected = plain.multi_krum(list(x.numpy()), best, n - f - 2)
    np.testing.assert_allclose(ours(name, x, num_byzantine=f, neighbours="n-f-2"), expected, rtol=0, atol=1e-9)


def test_one_neighbour_decides_which_update_krum_takes() -> None:
    """Of 0, 1, 2.5, 4.5 and 100 with f = 1, two neighbours (n-f-2) score 1 + 6.25, 1 + 2.25, 2.25 + 4, ... and 1
    wins with 3.25; three (n-f-1) score 27.5, 15.5, 12.5, 30.5, ... and 2.5 wins: 2.25 + 4 + 6.25 = 12.5."""
    x = torch.tensor([[0.0], [1.0], [2.5], [4.5], [100.0]], dtype=torch.float64)
    assert ours("krum", x, num_byzantine=1, neighbours="n-f-2") == [1.0]
    assert ours("krum", x, num_byzantine=1) == [2.5]


def test_the_geometric_median_of_a_triangle() -> None:
    """The point from which the corners of an equilateral triangle are seen under 120 degrees is its centre; of three
    points on a line it is the middle one."""
    corners = torch.tensor([[1.0, 0.0], [-0.5, 0.75**0.5], [-0.5, -(0.75**0.5)]], dtype=torch.float64) + 5
    np.testing.assert_allclose(ours("geometric_median", corners), [5, 5], atol=1e-6)
    line = torch.tensor([[1.0], [2.0], [50.0]], dtype=torch.float64)
    np.testing.assert_allclose(ours("geometric_median", line), [2], atol=1e-3)


def test_short_updates_do_not_turn_the_geometric_median_into_the_mean() -> None:
    """Updates of length 1e-3, as small learning rates give; with ByzFL's nu = 0.1 the rule would be the mean."""
    line = torch.tensor([[1e-3], [2e-3], [50e-3]], dtype=torch.float64)
    np.testing.assert_allclose(ours("geometric_median", line), [2e-3], atol=1e-5)
    np.testing.assert_allclose(ours("geometric_median", line, smoothing=0.1), [53e-3 / 3], atol=1e-12)


def test_mda_takes_the_tighter_of_two_sets_of_one_diameter() -> None:
    """Of 0, 2, 3, 4, 6 with f = 1 both {0, 2, 3, 4} and {2, 3, 4, 6} have diameter 4, and their squared distances add
    up to 4 + 9 + 16 + 1 + 4 + 1 = 35 in both: the first is taken. With 3.5 for 3 they add up to 4 + 12.25 + 16 + 2.25 +
    4 + 0.25 = 38.75 and 2.25 + 4 + 16 + 0.25 + 6.25 + 4 = 32.75: the second is."""
    x = torch.tensor([[0.0], [2.0], [3.0], [4.0], [6.0]], dtype=torch.float64)
    assert ours("mda", x, num_byzantine=1) == [9 / 4]
    x[2] = 3.5
    assert ours("mda", x, num_byzantine=1) == [15.5 / 4]


@pytest.mark.parametrize("name", ["trimmed_mean", "meamed", "multi_krum", "mda"])
def test_without_attackers_the_rule_is_the_mean(name: str) -> None:
    x = rows(7)
    np.testing.assert_allclose(ours(name, x, num_byzantine=0), x.mean(0).numpy(), rtol=0, atol=1e-12)


def test_the_mean_is_weighted_and_no_other_rule_is() -> None:
    x, weights = rows(5), [1.0, 2.0, 3.0, 4.0, 90.0]
    p = torch.tensor(weights, dtype=torch.float64) / 100
    assert torch.allclose(Sum().reduce(x, weights), p @ x)
    for name, (parameters, _, _) in RULES.items():
        rule = aggregation(name, **parameters(2))
        assert torch.equal(rule.reduce(x, weights), rule.reduce(x, [1.0] * 5))


@pytest.mark.parametrize("name", RULES)
def test_an_update_whose_square_overflows_float32_does_no_harm(name: str) -> None:
    """3e38 is finite in float32, its square is not. All but the clipped centre then stay among the honest updates."""
    x = torch.randn(9, 4, generator=torch.Generator().manual_seed(1))
    x[3], x[5] = 3e38, -3e38
    parameters = RULES[name][0](2) | ({"num_byzantine": 2} if name == "median" else {})
    result = aggregation(name, **parameters).reduce(x, [1.0] * 9)
    assert result.isfinite().all()
    assert result.abs().max() < 5
