"""A BatchNorm layer with FBN's normalisers: values, gradients, and what it reports."""

import copy
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

import coterie
from coterie.algorithms.batchnorm.gradients import constant_gradient, pooled_gradient, renorm_gradient
from coterie.core import rng, tree
from coterie.core.normaliser import Normaliser
from coterie.core.task import Task
from coterie.models.functional import make_task
from coterie.objectives import cross_entropy
from tests.algorithms.normed import MODELS, batch, dense, every_engine, every_model, run, task_of
from tests.federations import ragged

NORMALISERS = {"constant": constant_gradient, "renorm": renorm_gradient(), "pooled": pooled_gradient}
every_normaliser = pytest.mark.parametrize("normaliser", NORMALISERS.values(), ids=NORMALISERS)


@every_model
@every_normaliser
@pytest.mark.parametrize("b", [1, 2, 5])
def test_training_and_evaluation_give_the_same_outputs(model: str, normaliser: Normaliser, b: int) -> None:
    make, shape = MODELS[model]
    task, weights = task_of(make(), normaliser)
    x = batch(shape, b)
    outputs, _ = task.apply(weights["params"], weights["buffers"], x, None, rng.key(0))
    predicted = task.predict(weights["params"], weights["buffers"], x)
    assert torch.allclose(outputs, predicted, rtol=0, atol=1e-12)


@every_model
def test_no_example_touches_another(model: str) -> None:
    """The Jacobian of outputs [B, C] by inputs [B, ...] has blocks for i = j alone; BatchNorm's does not."""
    make, shape = MODELS[model]

    def across(task: Task, weights: tree.Tree) -> float:
        def outputs(x: Tensor) -> Tensor:
            return task.apply(weights["params"], weights["buffers"], x, None, rng.key(0))[0]

        jacobian = torch.autograd.functional.jacobian(outputs, batch(shape, 3)).flatten(3)  # [B, C, B, ...]
        return max(float(jacobian[i, :, j].abs().max()) for i in range(3) for j in range(3) if i != j)

    task, weights = task_of(make(), constant_gradient)
    assert across(task, weights) == 0
    assert across(make_task(make(), loss=cross_entropy), weights) > 1e-3
    assert across(task_of(make(), renorm_gradient())[0], weights) > 1e-3


@pytest.mark.parametrize("bounds", [(None, None), (1.2, 0.3)])
def test_the_renormalised_gradient_is_batch_renormalisations(bounds: tuple[float | None, float | None]) -> None:
    """One layer, against Ioffe's formula with PyTorch's batch_norm inside and r, d as plain numbers."""
    torch.manual_seed(5)
    layer = nn.BatchNorm1d(4).double()
    nn.init.normal_(layer.weight)
    task, weights = task_of(layer, renorm_gradient(*bounds))
    x, up = batch((4,), 6).requires_grad_(), torch.randn(6, 4, dtype=torch.float64)
    y, _ = task.apply(weights["params"], weights["buffers"], x, None, rng.key(0))
    (gradient,) = torch.autograd.grad((y * up).sum(), x)

    mean, var = weights["buffers"]["running_mean"], weights["buffers"]["running_var"]
    sd = (var + layer.eps).sqrt()
    r, d = (x.var(0, correction=0) + layer.eps).sqrt() / sd, (x.mean(0) - mean) / sd
    r, d = r.detach(), d.detach()
    if bounds[0] is not None and bounds[1] is not None:
        assert ((r > bounds[0]) | (r < 1 / bounds[0])).any()  # the bounds are felt
        assert (d.abs() > bounds[1]).any()
        r, d = r.clamp(1 / bounds[0], bounds[0]), d.clamp(-bounds[1], bounds[1])
    own = F.batch_norm(x, None, None, training=True, eps=layer.eps)
    expected = (own * r + d) * layer.weight + layer.bias
    (by_hand,) = torch.autograd.grad((expected * up).sum(), x)
    assert torch.allclose(y, expected, rtol=0, atol=1e-12)
    assert torch.allclose(gradient, by_hand, rtol=0, atol=1e-12)


@pytest.mark.parametrize("rows", [6, 4])
def test_with_the_batchs_own_statistics_and_slopes_the_pooled_gradient_is_batchnorms(rows: int) -> None:
    """Against PyTorch's layer on the real rows, whose gradients by bias and weight are the slopes over the weight;
    padded rows have no gradient at all.
    """
    torch.manual_seed(5)
    layer = nn.BatchNorm2d(4).double()
    nn.init.normal_(layer.weight)
    x, up = batch((4, 3, 2), 6).requires_grad_(), torch.randn(6, 4, 3, 2, dtype=torch.float64)
    mask = None if rows == 6 else torch.arange(6) < rows
    own = copy.deepcopy(layer).train()
    expected, *by_layer = torch.autograd.grad((own(x[:rows]) * up[:rows]).sum(), (x, own.bias, own.weight))
    slopes = (torch.stack(by_layer) * layer.weight).detach().requires_grad_()

    task, weights = task_of(layer, pooled_gradient)
    var, mean = torch.var_mean(x[:rows].detach(), (0, 2, 3), correction=0)
    buffers = weights["buffers"] | {"running_mean": mean, "running_var": var}
    y, _ = task.apply(weights["params"] | {"slopes": slopes}, buffers, x, mask, rng.key(0))
    gradient, fresh = torch.autograd.grad((y[:rows] * up[:rows]).sum(), (x, slopes))
    assert torch.allclose(gradient, expected, rtol=0, atol=1e-12)
    assert torch.allclose(fresh, slopes, rtol=0, atol=1e-12)


def test_the_constant_gradient_is_weight_over_deviation() -> None:
    layer = nn.BatchNorm1d(4).double()
    task, weights = task_of(layer, constant_gradient)
    x = batch((4,), 6).requires_grad_()
    y, _ = task.apply(weights["params"], weights["buffers"], x, None, rng.key(0))
    (gradient,) = torch.autograd.grad(y.sum(), x)
    expected = (weights["buffers"]["running_var"] + layer.eps).rsqrt().expand(6, 4)
    assert torch.allclose(gradient, expected, rtol=0, atol=1e-12)


@every_normaliser
def test_a_single_example_gives_numbers_and_a_gradient(normaliser: Normaliser) -> None:
    """Where BatchNorm's own gradient would be 0, since one value is its own mean."""
    task, weights = task_of(nn.BatchNorm1d(4).double(), normaliser)
    x = batch((4,), 1).requires_grad_()
    y, seen = task.apply(weights["params"], weights["buffers"], x, None, rng.key(0))
    (gradient,) = torch.autograd.grad(y.sum(), x)
    assert (gradient.abs() > 0.1).all()
    assert torch.equal(seen["running_mean"], x[0].detach())
    assert (seen["running_var"] == 0).all()
    assert int(seen["num_batches_tracked"]) == 1


def test_a_layer_that_a_forward_passes_twice_reports_both() -> None:
    """x and then 10 - x / 2: six values per channel."""

    class Twice(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.norm = nn.BatchNorm1d(2)

        def forward(self, x: Tensor) -> Tensor:
            return self.norm(x) + self.norm(10 - x / 2)

    task, weights = task_of(Twice().double(), constant_gradient)
    x = batch((2,), 3)
    _, seen = task.apply(weights["params"], weights["buffers"], x, None, rng.key(0))
    both = torch.cat([x, 10 - x / 2])
    assert torch.allclose(seen["norm.running_mean"], both.mean(0), rtol=0, atol=1e-12)
    assert torch.allclose(seen["norm.running_var"], both.var(0, correction=0), rtol=0, atol=1e-12)
    assert int(seen["norm.num_batches_tracked"]) == 6


@pytest.mark.parametrize("gradient", ["constant", "renorm"])
@every_engine
def test_clients_with_one_example_and_batches_of_one(gradient: Any, engine: str) -> None:
    recipe = coterie.fbn(variant="paper", lr=0.05, batch_size=1, local_steps=1, gradient=gradient)
    last = run(recipe, dense(), ragged(sizes=(1, 3, 1)), rounds=5, engine=engine)
    assert all(leaf.isfinite().all() for leaf in last.weights().values())
    assert (last.weights()["1.running_var"] > 0).all()
