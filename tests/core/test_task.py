"""A model and its loss as pure functions: gradients, masks, logs."""

from dataclasses import replace
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from coterie.core import rng
from coterie.core.task import Batch, Task, gradient_by_func, gradient_by_tape, masked_sums
from coterie.core.tree import Tree
from coterie.models.functional import initial_weights, make_task
from coterie.objectives import cross_entropy
from tests.federations import dense, distance

X, Y = torch.randn(8, 6, dtype=torch.float64), torch.tensor([0, 1, 2, 0, 1, 2, 0, 1])
KEY = rng.key("task")


def task_of(model: nn.Module, **options: Any) -> tuple[Task, Tree]:
    return make_task(model, **{"loss": cross_entropy} | options), initial_weights(model)


def batch(rows: Tensor, mask: Tensor | None = None) -> Batch:
    return Batch(X[rows], Y[rows], rows, mask, KEY)


def test_the_gradient_is_torch_s() -> None:
    """Of the mean loss, with its sum and count as logs, and the buffers as BatchNorm leaves them."""
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(6, 5), nn.BatchNorm1d(5), nn.Tanh(), nn.Linear(5, 3)).double()
    task, weights = task_of(model)
    grads, buffers, logs = task.gradient(weights["params"], weights["buffers"], batch(torch.arange(8)))
    loss = nn.functional.cross_entropy(model(X), Y)
    loss.backward()
    assert distance(grads, {name: p.grad for name, p in model.named_parameters() if p.grad is not None}) < 1e-10
    assert distance(buffers, dict(model.named_buffers())) < 1e-12
    assert float(logs["loss"]) == pytest.approx(8 * loss.item(), rel=1e-12)
    assert logs["count"] == 8


@pytest.mark.parametrize("differentiate", [gradient_by_tape, gradient_by_func])
@pytest.mark.parametrize("scale", [1e-4, 0.05, 1.0, 30.0])
def test_class_weights_that_sum_to_less_than_one_in_a_batch_take_torch_s_step(scale: float, differentiate: Any) -> None:
    """A count below 1 was taken for 1, and the step was 0.133 of PyTorch's."""
    weight = scale * torch.tensor([0.2, 0.5, 0.7], dtype=torch.float64)

    def weighted(outputs: Tensor, y: Tensor) -> tuple[Tensor, Tensor]:
        return nn.functional.cross_entropy(outputs, y, weight, reduction="none"), weight[y]

    torch.manual_seed(0)
    model = nn.Linear(6, 3).double()
    task, weights = task_of(model, loss=weighted)
    task = replace(task, autodiff=differentiate)
    grads, _, _ = task.gradient(weights["params"], weights["buffers"], batch(torch.arange(3)))
    nn.CrossEntropyLoss(weight=weight)(model(X[:3]), Y[:3]).backward()
    assert distance(grads, {name: p.grad for name, p in model.named_parameters() if p.grad is not None}) < 1e-12


def test_a_batch_in_which_nothing_counts_moves_nothing() -> None:
    task, weights = task_of(nn.Linear(6, 3).double())
    ignored = batch(torch.arange(3))._replace(y=torch.full((3,), -100))
    grads, _, logs = task.gradient(weights["params"], weights["buffers"], ignored)
    assert all(not g.any() for g in grads.values())
    assert (float(logs["loss"]), float(logs["count"])) == (0, 0)


@pytest.mark.parametrize("differentiate", [gradient_by_tape, gradient_by_func])
def test_both_ways_of_differentiating_agree_and_leave_no_graph(differentiate: Any) -> None:
    params = {"a": torch.tensor([1.0, 2.0]), "unused": torch.ones(3)}

    def f(p: Tree) -> tuple[Tensor, Tensor]:
        return (p["a"] ** 3).sum(), torch.tensor(7)

    grads, aux = differentiate(f, params)
    assert aux == 7
    assert grads["a"].tolist() == [3, 12]
    assert grads["unused"].tolist() == [0, 0, 0]
    assert not any(g.requires_grad for g in grads.values())
    assert not any(p.requires_grad for p in params.values())


@pytest.mark.parametrize("differentiate", [gradient_by_tape, gradient_by_func])
def test_gradients_are_taken_under_no_grad_too(differentiate: Any) -> None:
    with torch.no_grad():
        grads, _ = differentiate(lambda p: (p["a"].square().sum(), {}), {"a": torch.tensor([3.0])})
    assert grads["a"].tolist() == [6]


def test_padding_has_no_part_in_gradient_buffers_or_logs() -> None:
    """Five real rows and three others, against the five alone; dropout's mask and BatchNorm included."""
    task, weights = task_of(dense())
    real = torch.arange(8) < 5
    padded = task.gradient(weights["params"], weights["buffers"], batch(torch.arange(8), real))
    alone = task.gradient(weights["params"], weights["buffers"], batch(torch.arange(5)))
    for a, b in zip(padded, alone, strict=True):
        assert distance(a, b) < 1e-12


def test_a_batch_of_padding_alone_has_gradient_zero() -> None:
    model = nn.Linear(6, 3).double()
    task, weights = task_of(model)
    nothing = torch.zeros(8, dtype=torch.bool)
    grads, _, logs = task.gradient(weights["params"], weights["buffers"], batch(torch.arange(8), nothing))
    assert all((g == 0).all() for g in grads.values())
    assert logs == {"loss": 0, "count": 0}


def test_masked_sums() -> None:
    """Sums 1, 2, nan with counts 1, 3, 5; the last is not real, and its nan does not matter."""

    def score(outputs: Tensor, y: Any) -> tuple[Tensor, Tensor]:
        return torch.tensor([1.0, 2.0, float("nan")]), torch.tensor([1.0, 3.0, 5.0])

    total, count = masked_sums(score, torch.zeros(3), None, torch.tensor([True, True, False]))
    assert (total, count) == (3, 4)
    assert masked_sums(score, torch.zeros(3), None, None)[1] == 9


def test_a_step_s_key_decides_its_dropout_and_nothing_else_does() -> None:
    task, weights = task_of(dense())
    torch.manual_seed(0)
    first = task.gradient(weights["params"], weights["buffers"], batch(torch.arange(8)))
    torch.manual_seed(1)
    again = task.gradient(weights["params"], weights["buffers"], batch(torch.arange(8)))
    other = task.gradient(
        weights["params"], weights["buffers"], batch(torch.arange(8))._replace(key=rng.key("another"))
    )
    assert distance(first[0], again[0]) == 0
    assert distance(first[0], other[0]) > 0
