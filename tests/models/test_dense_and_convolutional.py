"""The FedAvg paper's first models, and the shapes they adapt to."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from coterie.core.errors import Mistake
from coterie.models import cnn, logistic, mlp, two_nn


def count(model) -> int:
    return sum(p.numel() for p in model.parameters())


def test_two_nn_has_the_papers_count():
    """(784 + 1) 200 + (200 + 1) 200 + (200 + 1) 10 = 157,000 + 40,200 + 2,010 = 199,210."""
    assert count(two_nn([1, 28, 28], 10)) == 199_210


def test_cnn_has_the_papers_count():
    """(25 + 1) 32 + (25 * 32 + 1) 64 + (7 * 7 * 64 + 1) 512 + (512 + 1) 10 = 832 + 51,264 + 1,606,144 + 5,130."""
    assert count(cnn([1, 28, 28], 10)) == 1_663_370


def test_mlp_counts_follow_the_hidden_sizes():
    """(5 + 1) 4 + (4 + 1) 3 + (3 + 1) 2 = 24 + 15 + 8."""
    assert count(mlp([5], 2, hidden=[4, 3])) == 47
    assert count(mlp([5], 2)) == 6 * 64 + 65 * 2
    assert count(logistic([5], 2)) == 12


def test_logistic_is_linear_in_the_flattened_example():
    model = logistic([2, 3], 4)
    x = torch.randn(5, 2, 3)
    assert torch.allclose(model(x), x.reshape(5, 6) @ model[1].weight.T + model[1].bias)


def test_hidden_layers_are_rectified():
    """x = 3 through weights 1 and -1 gives relu(3), relu(-3) = 3, 0; the output sums them: 3."""
    model = mlp([1], 1, hidden=[2])
    with torch.no_grad():
        for p, value in zip(model.parameters(), ([[1.0], [-1.0]], [0.0, 0.0], [[1.0, 1.0]], [0.0]), strict=True):
            p.copy_(torch.tensor(value))
    assert model(torch.tensor([[3.0]])).item() == 3.0


@settings(max_examples=15, deadline=None)
@given(st.integers(1, 4), st.integers(4, 33), st.integers(4, 33), st.integers(2, 12))
def test_cnn_adapts_to_any_image(channels, height, width, classes):
    assert cnn([channels, height, width], classes)(torch.zeros(2, channels, height, width)).shape == (2, classes)


@pytest.mark.parametrize("shape", [[13], [1, 3, 8], [80, 80], []])
def test_cnn_says_what_shape_it_needs(shape):
    with pytest.raises(Mistake, match=r"^name = \"cnn\": it takes images .*4 x 4.*but an example has shape"):
        cnn(shape, 10)


@pytest.mark.parametrize("hidden", [[0], [3, -1], [2.5]])
def test_mlp_refuses_a_layer_without_units(hidden):
    with pytest.raises(Mistake, match=r"^hidden = \[.*\]: it must be a list of whole numbers, each 1 or more$"):
        mlp([3], 2, hidden=hidden)


@pytest.mark.parametrize("shape", [[], [3, 0]])
def test_mlp_refuses_an_example_without_numbers(shape):
    with pytest.raises(Mistake, match=r"^name = \"mlp\": it takes examples of one or more numbers"):
        mlp(shape, 2)
