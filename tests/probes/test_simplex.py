"""Searches over the simplex, with known minima."""

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

from coterie.probes import minimise

weights = st.lists(st.floats(0.05, 1), min_size=2, max_size=6).map(
    lambda w: torch.tensor(w, dtype=torch.float64) / sum(w)
)


def around(centre: Tensor):
    """Return the function |x - centre|^2, with its gradient."""
    return lambda x: (float((x - centre).square().sum()), 2 * (x - centre))


@given(weights)
def test_a_minimum_inside_the_simplex_is_found(centre: Tensor) -> None:
    n = len(centre)
    found = minimise(around(centre), torch.full((n,), 1 / n, dtype=torch.float64), steps=300, tolerance=0.0)
    assert torch.allclose(found.at, centre, atol=1e-4)
    assert found.value <= found.first
    assert found.at.sum() == pytest.approx(1)


def test_a_minimum_outside_the_simplex_is_replaced_by_the_nearest_point() -> None:
    """(1, 0) is the point of the simplex that is nearest to (2, 0)."""
    found = minimise(around(torch.tensor([2.0, 0.0])), torch.tensor([0.5, 0.5]), steps=100)
    assert found.at.tolist() == pytest.approx([1, 0], abs=1e-3)
    assert found.value == pytest.approx(1, abs=1e-2)


def test_the_gap_bounds_the_distance_to_the_minimum() -> None:
    """For a linear function it is exactly the height above the lowest corner."""
    heights = torch.tensor([3.0, 1.0, 2.0], dtype=torch.float64)
    found = minimise(lambda x: (float(heights @ x), heights), torch.full((3,), 1 / 3), steps=2)
    assert found.gap == pytest.approx(found.value - 1)
    assert minimise(lambda x: (float(heights @ x), heights), torch.full((3,), 1 / 3), steps=50).value == pytest.approx(
        1, abs=1e-3
    )


@given(weights, st.integers(0, 5))
def test_no_step_raises_the_value(start: Tensor, steps: int) -> None:
    """This holds for a function with several valleys too."""

    def wavy(x: Tensor) -> tuple[float, Tensor]:
        with torch.enable_grad():
            x = x.detach().requires_grad_()
            value = (9 * x).sin().sum() + (x * x).sum()
            (slope,) = torch.autograd.grad(value, x)
        return float(value.detach()), slope

    values = [minimise(wavy, start, steps=k).value for k in range(steps + 1)]
    assert values == sorted(values, reverse=True)


def test_a_constant_function_leaves_the_start_unchanged() -> None:
    """All corners have the same value."""
    p = torch.tensor([0.75, 0.25], dtype=torch.float64)
    found = minimise(lambda x: (1.0, torch.ones(2, dtype=torch.float64)), p, steps=10)
    assert torch.equal(found.at, p)
    assert found.gap == 0
