"""BatchNorm's statistics measured on examples, against PyTorch's own way."""

import pytest
import torch
from torch import nn
from torch.optim.swa_utils import update_bn

from coterie import Examples
from coterie.core import tree
from coterie.core.tree import Tree
from coterie.engines.sequential import Sequential
from coterie.models.batchnorm_statistics import recalibration
from coterie.models.functional import initial_weights
from tests.federations import convolutional, dense

ENGINE = Sequential(dtype=torch.float64)


def normed() -> nn.Module:
    """Two layers, the second of which sees what the first one gives."""
    torch.manual_seed(4)
    layers = [nn.Linear(5, 6), nn.BatchNorm1d(6), nn.ReLU(), nn.Linear(6, 4), nn.BatchNorm1d(4, momentum=0.3)]
    return nn.Sequential(*layers).double()


@pytest.mark.parametrize("batch", [24, 8])
def test_as_pytorch_takes_them(batch: int) -> None:
    """In one batch, and as the mean over three equal ones."""
    model = normed()
    x = 3 + 2 * torch.randn(24, 5, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    found = recalibration(model, Examples(x), ENGINE, batch)(initial_weights(model))
    update_bn(list(x.split(batch)), model)
    for name, buffer in model.named_buffers():
        assert torch.allclose(found["buffers"][name].to(buffer.dtype), buffer, atol=1e-12), name


def test_evaluation_then_sees_what_training_sees() -> None:
    """With all examples in one batch: activations of mean 0 and variance 1, but for n / (n - 1) and eps."""
    model = normed()
    x = torch.randn(400, 5, generator=torch.Generator().manual_seed(1), dtype=torch.float64)
    weights = recalibration(model, Examples(x), ENGINE)(initial_weights(model))
    model.load_state_dict({**weights["params"], **weights["buffers"]})
    y = model.eval()(x)
    assert torch.allclose(y.mean(0), torch.zeros(4, dtype=torch.float64), atol=1e-2)
    assert torch.allclose(y.var(0), torch.ones(4, dtype=torch.float64), atol=1e-2)


@pytest.mark.parametrize(("make", "shape"), [(dense, (6,)), (convolutional, (1, 8, 8))])
def test_neither_dropout_nor_what_was_before_has_a_part(make, shape) -> None:
    model, x = make(), torch.randn(9, *shape, generator=torch.Generator().manual_seed(2), dtype=torch.float64)
    measure = recalibration(model, Examples(x), ENGINE)
    first = measure(initial_weights(model))
    again = measure(first)
    assert all(torch.equal(first["buffers"][name], b) for name, b in again["buffers"].items())
    assert any(not torch.equal(first["buffers"][name], b) for name, b in initial_weights(model)["buffers"].items())


def test_a_model_without_such_layers_is_left_alone() -> None:
    model = nn.Linear(2, 2)
    weights = initial_weights(model)
    assert recalibration(model, Examples(torch.zeros(3, 2)), Sequential())(weights) is weights


def test_frozen_layers_stay_as_they_are() -> None:
    """They are no part of the weights, and normalise by their own statistics; the layer behind them sees that."""
    model = normed()
    model[1].requires_grad_(False)
    x = torch.randn(24, 5, generator=torch.Generator().manual_seed(3), dtype=torch.float64)
    found = recalibration(model.float(), Examples(x), ENGINE)(double(initial_weights(model)))
    seen = nn.Sequential(*model.double()[:4]).eval()(x)
    assert found["buffers"].keys() == {"4.running_mean", "4.running_var", "4.num_batches_tracked"}
    assert torch.allclose(found["buffers"]["4.running_mean"], seen.mean(0), atol=1e-12)
    assert torch.allclose(found["buffers"]["4.running_var"], seen.var(0), atol=1e-12)


def double(weights: Tree) -> Tree:
    return tree.map(lambda leaf: leaf.double(), weights)
