"""Normalisers: the moments that layers give them, and what reaches a layer and comes back."""

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from coterie.core import rng
from coterie.core.normaliser import LayerInput, Moments, batch_moments, normalise
from coterie.models.functional import initial_weights, make_task
from coterie.objectives import cross_entropy
from tests.federations import distance

KEY = rng.key("normaliser")


def values(b: int, *extent: int, seed: int = 0) -> Tensor:
    return 2 + 3 * torch.randn(b, 4, *extent, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def assert_moments(found: Moments, x: Tensor) -> None:
    """They are the mean, the biased variance and the number of the values of x [B, C, ...] per channel."""
    channels = x.transpose(0, 1).flatten(1)  # [C, values]
    assert torch.allclose(found.mean, channels.mean(1), rtol=0, atol=1e-12)
    assert torch.allclose(found.var, channels.var(1, correction=0), rtol=0, atol=1e-12)
    assert found.number == channels.shape[1]


@pytest.mark.parametrize("extent", [(), (5,), (3, 2)])
def test_moments_are_those_of_the_real_rows(extent: tuple[int, ...]) -> None:
    x, mask = values(6, *extent), torch.tensor([True, False, True, True, False, False])
    assert_moments(batch_moments(x, None), x)
    assert_moments(batch_moments(x, mask), x[mask])


def test_merged_moments_are_those_of_all_values() -> None:
    x, more = values(5, 3), values(2, 3, seed=1)
    assert_moments(batch_moments(x, None).merge(batch_moments(more, None)), torch.cat([x, more]))


def test_merging_with_no_values_changes_nothing() -> None:
    some, none = batch_moments(values(5), None), batch_moments(values(5), torch.zeros(5, dtype=torch.bool))
    for merged in (some.merge(none), none.merge(some)):
        assert torch.allclose(torch.stack(merged[:2]), torch.stack(some[:2]), rtol=0, atol=1e-12)
        assert merged.number == 5


def by_the_batch(layer: LayerInput) -> tuple[Tensor, Moments]:
    return normalise(layer.x, layer.batch.mean, layer.batch.var, layer.eps), layer.batch


def model() -> nn.Module:
    torch.manual_seed(1)
    made = nn.Sequential(nn.Linear(4, 5), nn.BatchNorm1d(5, eps=1e-3), nn.Tanh(), nn.Linear(5, 4), nn.BatchNorm1d(4))
    nn.init.normal_(made[1].weight)
    return made.double()


def test_a_normaliser_by_the_batch_is_batchnorm() -> None:
    """Outputs and gradients are PyTorch's, weight and bias included; the report is the batch's moments."""
    task, weights, x = make_task(model(), loss=cross_entropy), initial_weights(model()), values(6)
    assert task.apply_with is not None
    params = {name: p.requires_grad_() for name, p in weights["params"].items()}
    outputs, seen = task.apply_with(by_the_batch)(params, weights["buffers"], x, None, KEY)
    torchs = model().train()
    expected = torchs(x)
    assert torch.allclose(outputs, expected, rtol=0, atol=1e-10)
    ours, theirs = (
        torch.autograd.grad((y * x).sum(), list(leaves))
        for y, leaves in ((outputs, params.values()), (expected, torchs.parameters()))
    )
    assert distance(dict(zip(params, ours, strict=True)), dict(zip(params, theirs, strict=True))) < 1e-9
    hidden = torchs[0](x).detach()
    found = Moments(seen["1.running_mean"], seen["1.running_var"], seen["1.num_batches_tracked"])
    assert_moments(found, hidden)
    assert not found.mean.requires_grad


def test_a_layer_gets_its_own_statistics_and_further_parameters() -> None:
    """Under their last names; they have a gradient, and no other layer sees them."""
    task, weights = make_task(model(), loss=cross_entropy), initial_weights(model())
    weights["buffers"]["1.running_mean"] += 7
    given: list[LayerInput] = []

    def record(layer: LayerInput) -> tuple[Tensor, Moments]:
        given.append(layer)
        return layer.x * layer.extra.get("factor", torch.ones(1)).reshape(1, -1), layer.batch

    assert task.apply_with is not None
    factor = torch.linspace(1, 2, 5, dtype=torch.float64, requires_grad=True)
    params = {**weights["params"], "1.factor": factor}
    outputs, _ = task.apply_with(record)(params, weights["buffers"], values(6), None, KEY)
    first, last = given
    assert list(first.extra) == ["factor"]
    assert list(last.extra) == []
    assert (first.running_mean == 7).all()
    assert (last.running_mean == 0).all()
    assert (first.eps, last.eps) == (1e-3, 1e-5)
    (gradient,) = torch.autograd.grad(outputs.square().sum(), factor)
    assert (gradient != 0).all()


def test_a_forward_without_a_normaliser_comes_after_one_with_it() -> None:
    task, weights, x = make_task(model(), loss=cross_entropy), initial_weights(model()), values(6)
    assert task.apply_with is not None
    before = task.apply(weights["params"], weights["buffers"], x, None, KEY)
    task.apply_with(lambda layer: (layer.x, layer.batch))(weights["params"], weights["buffers"], x, None, KEY)
    after = task.apply(weights["params"], weights["buffers"], x, None, KEY)
    assert torch.equal(before[0], after[0])
    assert distance(before[1], after[1]) == 0


def test_normalise_is_pytorchs() -> None:
    x, mean, var = values(6, 3), torch.arange(4.0).double(), torch.arange(1.0, 5.0).double()
    assert torch.allclose(normalise(x, mean, var, 0.1), F.batch_norm(x, mean, var, eps=0.1), rtol=0, atol=1e-12)
