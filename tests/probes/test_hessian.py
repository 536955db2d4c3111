"""The largest eigenvalue of a Hessian, against closed forms and against the whole matrix."""

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor, nn
from torch.func import functional_call

from coterie import Examples
from coterie.objectives import cross_entropy
from coterie.probes import curvature, top_eigenvalue
from tests.federations import dense, ragged
from tests.probes.surfaces import network_surface, perturb, point, point_surface


def test_a_quadratic_bends_by_its_largest_factor() -> None:
    """1/2 (3 x^2 + 7 y^2 - 9 z^2) bends by 3, 7 and -9, everywhere."""
    bends = torch.tensor([3.0, 7.0, -9.0], dtype=torch.float64)
    surface = point_surface(lambda outputs, y: ((bends * outputs**2).sum(1) / 2, torch.ones(len(outputs))), d=3)
    found = curvature(surface, point(1.0, -2.0, 5.0), tolerance=1e-4)
    assert found.value == pytest.approx(7, rel=1e-4)
    assert found.residual <= 1e-4


def test_a_linear_loss_does_not_bend() -> None:
    surface = point_surface(lambda outputs, y: (outputs.sum(1), torch.ones(len(outputs))))
    assert curvature(surface, point(1.0, 2.0)).value == 0


def whole_hessian(model: nn.Module, params: dict[str, Tensor], examples: Examples) -> Tensor:
    """Return the Hessian [d, d] of the mean cross-entropy in evaluation mode."""
    x, y = examples.tensors()
    shapes = {name: p.shape for name, p in params.items()}

    def loss(flat: Tensor) -> Tensor:
        parts = torch.split(flat, [shape.numel() for shape in shapes.values()])
        held = {name: part.reshape(shape) for (name, shape), part in zip(shapes.items(), parts, strict=True)}
        return cross_entropy(functional_call(model.eval(), held, (x,)), y)[0].mean()

    flat = torch.cat([p.reshape(-1) for p in params.values()])
    return torch.autograd.functional.hessian(loss, flat)


@pytest.mark.parametrize("seed", range(3))
def test_a_network_agrees_with_its_whole_hessian(seed: int) -> None:
    """The network has BatchNorm and dropout, which evaluation leaves out; the last batch is smaller."""
    examples, model = ragged()["1"], dense()
    weights = perturb(model, seed)
    expected = torch.linalg.eigvalsh(whole_hessian(model, weights["params"], examples)).max()
    found = curvature(network_surface(model, examples), weights, steps=500, tolerance=1e-4)
    assert found.value == pytest.approx(float(expected), rel=1e-3)


@given(st.lists(st.floats(-10, 10).map(lambda x: round(x, 1)), min_size=2, max_size=8))
def test_the_largest_eigenvalue_of_any_spectrum_is_found(eigenvalues: list[float]) -> None:
    """A negative eigenvalue may have the largest size, or the same size."""
    g = torch.Generator().manual_seed(len(eigenvalues))
    q = torch.linalg.qr(torch.randn(len(eigenvalues), len(eigenvalues), generator=g, dtype=torch.float64)).Q
    matrix = q @ torch.diag(torch.tensor(eigenvalues, dtype=torch.float64)) @ q.T
    start = torch.randn(len(eigenvalues), generator=g, dtype=torch.float64)
    found = top_eigenvalue(lambda v: matrix @ v, start, steps=2000, tolerance=1e-6)
    assert found.value == pytest.approx(max(eigenvalues), abs=0.01)


def test_opposite_eigenvalues_of_the_same_size_are_told_apart() -> None:
    """Power iteration alone would swing between them for ever."""
    signs = torch.tensor([5.0, -5.0, 1.0], dtype=torch.float64)
    found = top_eigenvalue(lambda v: signs * v, torch.ones(3, dtype=torch.float64), tolerance=1e-3)
    assert found.value == pytest.approx(5, rel=1e-3)
    assert found.products < 150
