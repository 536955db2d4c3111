"""One client with one full batch takes the same steps as plain PyTorch: for each kind of task, on each engine."""

from __future__ import annotations

import copy
from typing import Any

import pytest
import torch
from torch import Tensor, nn

import coterie
from coterie import Examples, TaskOptions
from coterie.engines.sequential import Sequential
from coterie.engines.vectorised import Vectorised

STEPS, LR = 3, 0.1


def draw(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


X = torch.randn(24, 5, generator=draw(), dtype=torch.float64)
IMAGES = torch.randn(12, 2, 4, 3, generator=draw(1), dtype=torch.float64)
CLASSES = torch.randint(3, (24,), generator=draw(2))
FLAGS = (X[:, :3] > 0.2).long()
PIXELS = torch.randint(3, (12, 4, 3), generator=draw(3))
MASKED = PIXELS.clone()
MASKED[:, 0] = 255
WEIGHTS = [0.2, 3.0, 1.0]


class Last(nn.Module):
    """A sequence model [B, T, 2] -> [B, T, 3], the classes last."""

    def __init__(self) -> None:
        super().__init__()
        self.layer = nn.Linear(3, 3, dtype=torch.float64)

    def forward(self, x: Tensor) -> Tensor:
        scores: Tensor = self.layer(x)
        return scores


def linear(outputs: int) -> nn.Module:
    return nn.Linear(5, outputs, dtype=torch.float64)


def conv() -> nn.Module:
    return nn.Conv2d(2, 3, 1, dtype=torch.float64)


def ce(**options: Any) -> nn.Module:
    weights = options.pop("weight", None)
    return nn.CrossEntropyLoss(None if weights is None else torch.tensor(weights, dtype=torch.float64), **options)


SEQUENCES = torch.randn(12, 6, 3, generator=draw(4), dtype=torch.float64)
MARKS = torch.randint(3, (12, 6), generator=draw(5))
LOGIT, NUMBER = linear(1), linear(1)

CASES: dict[str, tuple[nn.Module, Tensor, Tensor, TaskOptions, nn.Module, Any]] = {
    # model, x, y, [task], PyTorch's loss, (outputs, y) -> what PyTorch's loss takes
    "classification": (linear(3), X, CLASSES, TaskOptions("classification"), ce(), None),
    "class weights": (linear(3), X, CLASSES, TaskOptions(class_weights=WEIGHTS), ce(weight=WEIGHTS), None),
    "smoothed": (
        linear(3),
        X,
        CLASSES,
        TaskOptions(class_weights=WEIGHTS, label_smoothing=0.2),
        ce(weight=WEIGHTS, label_smoothing=0.2),
        None,
    ),
    "binary": (
        linear(1),
        X,
        FLAGS[:, 0],
        TaskOptions("binary"),
        nn.BCEWithLogitsLoss(),
        lambda o, y: (o[:, 0], y.double()),
    ),
    "multilabel": (
        linear(3),
        X,
        FLAGS,
        TaskOptions("multilabel"),
        nn.BCEWithLogitsLoss(),
        lambda o, y: (o, y.double()),
    ),
    "weighted labels": (
        linear(3),
        X,
        FLAGS,
        TaskOptions("multilabel", class_weights=WEIGHTS),
        nn.BCEWithLogitsLoss(pos_weight=torch.tensor(WEIGHTS, dtype=torch.float64)),
        lambda o, y: (o, y.double()),
    ),
    "regression": (linear(1), X, X[:, 0] ** 2, TaskOptions("regression"), nn.MSELoss(), lambda o, y: (o[:, 0], y)),
    "several numbers": (linear(2), X, X[:, :2] ** 2, TaskOptions(), nn.MSELoss(), None),
    "huber": (linear(1), X, 3 * X[:, 0], TaskOptions(loss="huber"), nn.HuberLoss(), lambda o, y: (o[:, 0], y)),
    "l1": (linear(1), X, 3 * X[:, 0], TaskOptions(loss="l1"), nn.L1Loss(), lambda o, y: (o[:, 0], y)),
    "segmentation": (conv(), IMAGES, PIXELS, TaskOptions("segmentation"), ce(), None),
    "pixels that do not count": (
        conv(),
        IMAGES,
        MASKED,
        TaskOptions("segmentation", ignore_index=255, class_weights=WEIGHTS),
        ce(ignore_index=255, weight=WEIGHTS),
        None,
    ),
    "sequence": (Last(), SEQUENCES, MARKS, TaskOptions("sequence"), ce(), lambda o, y: (o.movedim(-1, 1), y)),
}


def plain(model: nn.Module, x: Tensor, y: Tensor, loss: nn.Module, form: Any) -> tuple[dict[str, Tensor], float]:
    """Return the weights after steps of plain PyTorch, and the loss after them."""
    model = copy.deepcopy(model)
    optimizer = torch.optim.SGD(model.parameters(), lr=LR)
    form = form or (lambda outputs, y: (outputs, y))
    for _ in range(STEPS):
        optimizer.zero_grad()
        loss(*form(model(x), y)).backward()
        optimizer.step()
    return dict(model.state_dict()), float(loss(*form(model(x), y)).detach())


def federated(model: nn.Module, x: Tensor, y: Tensor, **options: Any) -> coterie.Round:
    examples = Examples(x, y)
    recipe = coterie.fedavg(lr=LR, batch_size=len(x))
    engine = options.pop("engine", Sequential(dtype=torch.float64))
    rounds = coterie.federate(recipe, model, {"a": examples}, rounds=STEPS, test=examples, engine=engine, **options)
    return list(rounds)[-1]


@pytest.mark.parametrize("case", CASES)
@pytest.mark.parametrize("engine", [Sequential, Vectorised])
def test_a_kind_takes_the_steps_of_plain_pytorch(case: str, engine: Any) -> None:
    model, x, y, options, loss, form = CASES[case]
    expected, end = plain(model, x, y, loss, form)
    round = federated(model, x, y, task=options, engine=engine(dtype=torch.float64))
    for name, weight in round.weights().items():
        assert torch.allclose(weight, expected[name], rtol=0, atol=1e-10), name
    assert round.test_loss == pytest.approx(end, abs=1e-10)


MODULES = {
    "cross-entropy": (linear(3), X, CLASSES, ce(weight=WEIGHTS, label_smoothing=0.1), None),
    "class probabilities": (linear(3), X, torch.softmax(X[:, :3], 1), ce(), None),
    "bce": (linear(1), X, FLAGS[:, 0], nn.BCEWithLogitsLoss(), lambda o, y: (o[:, 0], y.double())),
    "mse": (linear(1), X, X[:, :1] ** 2, nn.MSELoss(), None),
    "smooth l1": (linear(2), X, 3 * X[:, :2], nn.SmoothL1Loss(beta=0.5), None),
    "poisson": (linear(1), X, CLASSES.double(), nn.PoissonNLLLoss(), lambda o, y: (o[:, 0], y)),
    "margins": (linear(3), X, CLASSES, nn.MultiMarginLoss(), None),
    "soft margins of labels": (linear(3), X, FLAGS, nn.MultiLabelSoftMarginLoss(), None),
    "pixels": (conv(), IMAGES, PIXELS, ce(weight=WEIGHTS), None),
}


@pytest.mark.parametrize("case", MODULES)
def test_a_module_is_taken_as_it_is(case: str) -> None:
    model, x, y, loss, form = MODULES[case]
    expected, end = plain(model, x, y, loss, form)
    round = federated(model, x, y, loss=loss)
    for name, weight in round.weights().items():
        assert torch.allclose(weight, expected[name], rtol=0, atol=1e-10), name
    assert round.test_loss == pytest.approx(end, abs=1e-10)


@pytest.mark.parametrize("factor", [100, 0.001])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_weights_of_classes_that_are_all_larger_change_no_step(factor: float, dtype: torch.dtype) -> None:
    """PyTorch divides by the sum of the weights of the labels, so a common factor cancels. Below 1 in a batch too."""
    scaled = [factor * weight for weight in WEIGHTS]
    model = nn.Linear(5, 3).to(dtype)
    expected, _ = plain(model, X.to(dtype), CLASSES, ce(weight=scaled).to(dtype), None)
    options = {"engine": Sequential(dtype=dtype)}
    by_name = federated(model, X.to(dtype), CLASSES, task=TaskOptions(class_weights=scaled), **options)
    by_module = federated(model, X.to(dtype), CLASSES, loss=ce(weight=scaled), **options)
    unscaled = federated(model, X.to(dtype), CLASSES, task=TaskOptions(class_weights=WEIGHTS), **options)
    for name, weight in expected.items():
        for round in (by_name, by_module, unscaled):
            assert torch.allclose(round.weights()[name], weight, rtol=0, atol=1e-6), name


def test_two_clients_of_a_weighted_loss_are_one_client_whose_batch_is_split() -> None:
    """The mean of a batch in two masked parts: sums and counts add up, as the vectorised engine pads them."""
    from coterie.objectives.loss_modules import ModuleLoss

    loss, outputs = ModuleLoss(ce(weight=WEIGHTS)), torch.randn(24, 3, generator=draw(6), dtype=torch.float64)
    parts = [loss(outputs[part], CLASSES[part]) for part in (slice(0, 5), slice(5, 24))]
    total, count = (sum(float(part[k].sum()) for part in parts) for k in (0, 1))
    assert total / count == pytest.approx(float(ce(weight=WEIGHTS)(outputs, CLASSES)), abs=1e-12)


@pytest.mark.parametrize(
    ("loss", "sentence"),
    [
        (nn.MSELoss(reduction="sum"), "loss: nn.MSELoss has the reduction 'sum'"),
        (nn.TripletMarginLoss(), "loss: it cannot take"),
        (nn.Softmax(1), "loss: nn.Softmax has no reduction"),
    ],
)
def test_other_modules_are_refused_in_a_sentence(loss: nn.Module, sentence: str) -> None:
    with pytest.raises(coterie.Mistake) as caught:
        federated(linear(3), X, CLASSES, loss=loss)
    assert str(caught.value).startswith(sentence)


class OtherMean(nn.Module):
    """A mean that is no sum over elements: the median."""

    reduction = "mean"

    def forward(self, outputs: Tensor, y: Tensor) -> Tensor:
        each = (outputs[:, 0] - y) ** 2
        return each.median() * 3 if self.reduction == "mean" else each


def test_a_module_with_another_mean_is_refused() -> None:
    with pytest.raises(coterie.Mistake, match='loss = "OtherMean": it must be a module whose mean'):
        federated(linear(1), X, X[:, 0], loss=OtherMean())
