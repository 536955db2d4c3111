"""A run of one client with one full batch is a training by PyTorch alone: its losses, optimisers, schedules, metrics.

Of six kinds of task and five optimisers each pair has one schedule, by a Latin square: each kind meets every optimiser
and every schedule, and each optimiser every schedule.
"""

from __future__ import annotations

import copy
import itertools
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.optim import lr_scheduler as schedulers

import coterie
from coterie import Examples
from coterie.engines.sequential import Sequential
from coterie.engines.vectorised import Vectorised
from tests.objectives.test_plain_torch import CASES

torchmetrics = pytest.importorskip("torchmetrics")

ROUNDS, LR, END = 6, 0.05, 0.01
KINDS = ["classification", "binary", "multilabel", "regression", "segmentation", "sequence"]
OPTIMIZERS: dict[str, tuple[type[torch.optim.Optimizer], dict[str, Any], dict[str, Any]]] = {
    # PyTorch's, its arguments, and those of an algorithm
    "sgd": (torch.optim.SGD, {"momentum": 0.9, "weight_decay": 0.01}, {"momentum": 0.9, "weight_decay": 0.01}),
    "adam": (torch.optim.Adam, {}, {}),
    "adamw": (torch.optim.AdamW, {"weight_decay": 0.01}, {"weight_decay": 0.01}),
    "adagrad": (torch.optim.Adagrad, {}, {}),
    "rmsprop": (torch.optim.RMSprop, {"alpha": 0.9}, {"alpha": 0.9}),
}


def rise_and_fall(optimizer: torch.optim.Optimizer) -> Any:
    rise = schedulers.LinearLR(optimizer, 1 / 3, total_iters=2)
    return schedulers.SequentialLR(optimizer, [rise, schedulers.CosineAnnealingLR(optimizer, ROUNDS - 2)], [2])


SCHEDULES: dict[str, tuple[Callable[[torch.optim.Optimizer], Any], dict[str, Any]]] = {
    "constant": (lambda optimizer: schedulers.ConstantLR(optimizer, 1.0), {"schedule": "constant"}),
    "cosine": (
        lambda optimizer: schedulers.CosineAnnealingLR(optimizer, ROUNDS, eta_min=END),
        {"schedule": "cosine", "schedule_length": ROUNDS, "lr_end": END},
    ),
    "linear": (
        lambda optimizer: schedulers.LinearLR(optimizer, 1.0, END / LR, ROUNDS),
        {"schedule": "linear", "schedule_length": ROUNDS, "lr_end": END},
    ),
    "step": (
        lambda optimizer: schedulers.StepLR(optimizer, 2, 0.5),
        {"schedule": "step", "step_size": 2, "gamma": 0.5},
    ),
    "warm-up": (rise_and_fall, {"schedule": "cosine", "schedule_length": ROUNDS, "warmup": 2}),
}
PAIRS = [
    (kind, optimizer, list(SCHEDULES)[(k + j) % len(SCHEDULES)])
    for (k, kind), (j, optimizer) in itertools.product(enumerate(KINDS), enumerate(OPTIMIZERS))
]


def test_each_optimiser_meets_every_schedule_and_so_does_each_kind() -> None:
    assert {(optimizer, schedule) for _, optimizer, schedule in PAIRS} == set(itertools.product(OPTIMIZERS, SCHEDULES))
    assert {(kind, schedule) for kind, _, schedule in PAIRS} == set(itertools.product(KINDS, SCHEDULES))


def measure(kind: str, outputs: Tensor, y: Tensor) -> dict[str, float]:
    """What torchmetrics says of a model's outputs."""
    found = torchmetrics.functional
    if kind == "binary":
        chances = outputs[:, 0].sigmoid()
        return {"accuracy": found.accuracy(chances, y, "binary"), "f1": found.f1_score(chances, y, "binary")}
    if kind == "multilabel":
        of = {"task": "multilabel", "num_labels": 3}
        return {
            "accuracy": found.accuracy(outputs, y, average="micro", **of),
            "f1": found.f1_score(outputs, y, average="macro", **of),
        }
    if kind == "regression":
        rmse = found.mean_squared_error(outputs[:, 0], y, squared=False)
        return {
            "rmse": rmse,
            "mae": found.mean_absolute_error(outputs[:, 0], y),
            "r2": found.r2_score(outputs[:, 0], y),
        }
    scores = outputs.movedim(-1, 1) if kind == "sequence" else outputs  # [B, C, ...]
    of = {"task": "multiclass", "num_classes": 3}
    return {
        "accuracy": found.accuracy(scores, y, average="micro", **of),
        "f1": found.f1_score(scores, y, average="macro", **of),
    }


def train(
    model: nn.Module, case: str, optimizer: str, schedule: str
) -> tuple[dict[str, Tensor], float, dict[str, float]]:
    """Return weights, loss and measures after a training by PyTorch alone."""
    model = copy.deepcopy(model)
    _, x, y, _, loss, form = CASES[case]
    form = form or (lambda outputs, y: (outputs, y))
    make, arguments, _ = OPTIMIZERS[optimizer]
    steps = make(model.parameters(), lr=LR, **arguments)
    rates = SCHEDULES[schedule][0](steps)
    for _ in range(ROUNDS):
        steps.zero_grad()
        loss(*form(model(x), y)).backward()
        steps.step()
        rates.step()
    outputs = model(x).detach()
    return dict(model.state_dict()), float(loss(*form(outputs, y))), measure(case, outputs, y)


@pytest.mark.filterwarnings("ignore:The epoch parameter")
@pytest.mark.parametrize(("kind", "optimizer", "schedule"), PAIRS)
def test_a_run_of_one_client_is_a_training_by_pytorch_alone(kind: str, optimizer: str, schedule: str) -> None:
    model, x, y, options, _, _ = CASES[kind]
    expected, loss, measures = train(model, kind, optimizer, schedule)
    recipe = coterie.fedavg(
        lr=LR,
        batch_size="full",
        optimizer=optimizer,  # type: ignore[arg-type]
        keep_optimizer=True,
        **OPTIMIZERS[optimizer][2],
        **SCHEDULES[schedule][1],
    )
    for engine in (Sequential(dtype=torch.float64), Vectorised(dtype=torch.float64)):
        *_, last = coterie.federate(
            recipe,
            model,
            {"a": Examples(x, y)},
            rounds=ROUNDS,
            test=Examples(x, y),
            task=options,
            metrics=["r2"] if kind == "regression" else ["f1"],
            evaluate_every=ROUNDS,
            engine=engine,
        )
        for name, weight in last.weights().items():
            assert torch.allclose(weight, expected[name], rtol=0, atol=1e-10), name
        assert last.test_loss == pytest.approx(loss, abs=1e-10)
        found = last.record()
        for name, value in measures.items():
            assert found[f"test_{name}"] == pytest.approx(float(value), abs=1e-6), name
