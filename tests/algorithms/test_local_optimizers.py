"""The optimisers of local training, against `torch.optim`, on every engine, and by hand."""

from __future__ import annotations

import copy
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor, nn

import coterie
from coterie import Examples, Mistake
from coterie.core.engine import Engine
from coterie.engines.sequential import Sequential
from coterie.engines.vectorised import Vectorised
from tests.algorithms.quadratics import TWO, clients, run, w
from tests.common.programs import either_program, make
from tests.federations import distance, ragged

MAKERS: dict[str, type[torch.optim.Optimizer]] = {
    "sgd": torch.optim.SGD,
    "adam": torch.optim.Adam,
    "adamw": torch.optim.AdamW,
    "adagrad": torch.optim.Adagrad,
    "rmsprop": torch.optim.RMSprop,
}
CASES: dict[str, dict[str, Any]] = {
    "sgd": {},
    "sgd, momentum": {"momentum": 0.9},
    "sgd, Nesterov": {"momentum": 0.9, "nesterov": True, "weight_decay": 0.1},
    "sgd, dampening": {"momentum": 0.9, "dampening": 0.3, "weight_decay": 0.1},
    "adam": {},
    "adam, all": {"betas": [0.8, 0.95], "eps": 1e-4, "weight_decay": 0.1, "amsgrad": True},
    "adamw": {"weight_decay": 0.01},
    "adamw, all": {"betas": [0.8, 0.95], "eps": 1e-4, "weight_decay": 0.1, "amsgrad": True},
    "adagrad": {},
    "adagrad, all": {"eps": 1e-4, "initial_accumulator_value": 0.2, "weight_decay": 0.1},
    "rmsprop": {},
    "rmsprop, all": {"alpha": 0.9, "eps": 1e-4, "momentum": 0.5, "centered": True, "weight_decay": 0.1},
}
every_case = pytest.mark.parametrize("case", CASES)


def options(case: str) -> dict[str, Any]:
    """The arguments of an algorithm for a case."""
    return {"optimizer": case.partition(",")[0], **CASES[case]}


def smooth() -> nn.Module:
    """A network without normalisation, so that no gradient is rounding alone."""
    torch.manual_seed(1)
    return nn.Sequential(nn.Linear(6, 8), nn.Tanh(), nn.Linear(8, 3)).double()


def plain_steps(model: nn.Module, data: Examples, optimizer: torch.optim.Optimizer, steps: int) -> dict[str, Tensor]:
    """Full-batch steps as anyone writes them."""
    x, y = data.tensors()
    for _ in range(steps):
        optimizer.zero_grad()
        nn.functional.cross_entropy(model(x), y).backward()
        optimizer.step()
    return dict(model.state_dict())


def one_client() -> dict[str, Examples]:
    return {"0": ragged(sizes=(23,))["0"]}


def torch_optimizer(case: str, model: nn.Module, lr: float) -> torch.optim.Optimizer:
    extra: dict[str, Any] = dict(CASES[case])
    return MAKERS[case.partition(",")[0]](model.parameters(), lr=lr, **extra)  # type: ignore[call-arg]


@every_case
@pytest.mark.parametrize("engine", [Sequential, Vectorised])
def test_many_steps_of_one_client_are_those_of_torch(case: str, engine: Callable[..., Engine]) -> None:
    """Four rounds of ten full-batch steps of one client that keeps its optimiser are forty steps of `torch.optim`."""
    model = smooth()
    recipe = coterie.fedavg(lr=0.02, local_steps=10, batch_size="full", keep_optimizer=True, **options(case))
    last = list(
        coterie.federate(recipe, copy.deepcopy(model), one_client(), rounds=4, engine=engine(dtype=torch.float64))
    )[-1]
    start = {name: x.clone() for name, x in model.state_dict().items()}
    expected = plain_steps(model, one_client()["0"], torch_optimizer(case, model, 0.02), 40)
    assert distance(last.weights(), expected) < 1e-12
    assert distance(expected, start) > 0.05


@every_case
def test_a_client_that_keeps_nothing_starts_afresh(case: str) -> None:
    """Then every round begins with a new optimiser of `torch.optim`."""
    model = smooth()
    recipe = coterie.fedavg(lr=0.02, local_steps=5, batch_size="full", **options(case))
    engine = Sequential(dtype=torch.float64)
    last = list(coterie.federate(recipe, copy.deepcopy(model), one_client(), rounds=3, engine=engine))[-1]
    for _ in range(3):
        expected = plain_steps(model, one_client()["0"], torch_optimizer(case, model, 0.02), 5)
    assert distance(last.weights(), expected) < 1e-12


@every_case
def test_the_gradient_is_clipped_first(case: str) -> None:
    """As `torch.nn.utils.clip_grad_norm_` before a step does; it adds 1e-6 to the norm, and so the bound is wide."""
    model, (x, y) = smooth(), one_client()["0"].tensors()
    recipe = coterie.fedavg(lr=0.02, local_steps=5, batch_size="full", clip_norm=0.05, **options(case))
    engine = Sequential(dtype=torch.float64)
    last = list(coterie.federate(recipe, copy.deepcopy(model), one_client(), rounds=1, engine=engine))[-1]
    optimizer = torch_optimizer(case, model, 0.02)
    for _ in range(5):
        optimizer.zero_grad()
        nn.functional.cross_entropy(model(x), y).backward()
        nn.utils.clip_grad_norm_(model.parameters(), 0.05)
        optimizer.step()
    assert distance(last.weights(), dict(model.state_dict())) < 1e-5


@every_case
def test_engines_agree(case: str) -> None:
    """Ragged clients with short batches and unlike numbers of steps."""
    recipe = coterie.fedavg(lr=0.02, local_epochs=2, batch_size=5, keep_optimizer=True, clip_norm=1.0, **options(case))
    found = [
        list(coterie.federate(recipe, smooth(), ragged(), rounds=3, cohort=0.7, engine=engine))[-1]
        for engine in (Sequential(dtype=torch.float64), Vectorised(dtype=torch.float64, chunk=2))
    ]
    assert distance(found[0].weights(), found[1].weights()) < 1e-10


@either_program
def test_compiled_steps_agree(program: str, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch) -> None:
    """With a schedule over steps and two batches for each, whose counts are part of the carry."""
    make(program, monkeypatch)
    shared: dict[str, Any] = {"schedule": "cosine", "schedule_over": "steps", "warmup": 1, "accumulate": 2}
    recipe = coterie.fedavg(lr=0.02, local_epochs=2, batch_size=5, **shared, **options("adamw, all"))
    line = nn.Linear(6, 3)
    found = [
        list(coterie.federate(recipe, line, ragged(sizes=(10, 15)), rounds=2, engine=engine))[-1]
        for engine in (Sequential(dtype=torch.float64), Sequential(dtype=torch.float64, compile=True))
    ]
    assert "uncompiled" not in caplog.text
    assert distance(found[0].weights(), found[1].weights()) < 1e-10


def test_adams_first_steps_by_hand() -> None:
    """Adam's first step is lr g / (|g| + eps), whatever the gradient's size. From w = 0, lr 1/2, eps tiny, client 0
    (a, b = 1, 4) goes to 1/2 and client 1 (2, -1) to -1/2; their mean is 3/4 1/2 - 1/4 1/2 = 1/4."""
    recipe = coterie.fedavg(lr=0.5, local_steps=1, batch_size="full", optimizer="adam", eps=1e-14)
    assert w(run(recipe)[-1]) == pytest.approx(0.25, abs=1e-12)


def test_adagrad_by_hand() -> None:
    """One client (1, 4), lr 1: g = -4, sum 16, w = 1; g = -3, sum 25, w = 1 + 3/5."""
    recipe = coterie.fedavg(lr=1.0, local_steps=2, batch_size="full", optimizer="adagrad", eps=1e-14)
    assert w(run(recipe, {"0": TWO["0"]})[-1]) == pytest.approx(1.6, abs=1e-12)


def test_plain_sgd_is_unchanged_bit_for_bit() -> None:
    """The arithmetic of w - lr (g + decay w + momentum m), in this order. One weight from w = 0, the loss
    1 / 2 (w - 4)^2 of one example, lr 0.1, momentum 0.9, decay 0.01; g = w - 4 exactly."""
    recipe = coterie.fedavg(lr=0.1, local_steps=3, batch_size="full", momentum=0.9, weight_decay=0.01)
    x, m, lr = (torch.tensor(value, dtype=torch.float64) for value in (0.0, 0.0, 0.1))
    for _ in range(3):
        gradient = x - 4.0
        m = torch.add(torch.add(gradient, x, alpha=0.01), m, alpha=0.9)
        x = torch.addcmul(x, m, -lr)
    assert w(run(recipe, clients([1], [4], [1]))[-1]) == x.item()


@pytest.mark.parametrize(
    ("algorithm", "arguments", "sentence"),
    [
        (coterie.fedavg, {"optimizer": "adm"}, 'optimizer = "adm": it must be "sgd", "adam", "adamw", "adagrad" or'),
        (
            coterie.fedavg,
            {"optimizer": "adam", "momentum": 0.9},
            'momentum = 0.9: the optimizer "adam" does not take it; it belongs to "sgd" and "rmsprop"',
        ),
        (coterie.fedavg, {"betas": [0.9, 0.99]}, 'betas = [0.9, 0.99]: the optimizer "sgd" does not take it'),
        (coterie.fedavg, {"optimizer": "adam", "betas": [0.9]}, "betas = [0.9]: it must be two numbers"),
        (coterie.fedavg, {"optimizer": "adam", "betas": [0.9, 1]}, "it must be a list, of numbers from 0 to below 1"),
        (coterie.fedavg, {"optimizer": "adamw"}, "weight_decay = 0.0: it must be above 0 with adamw, such as 0.01"),
        (coterie.fedavg, {"nesterov": True}, "nesterov = true: it must be false where momentum = 0"),
        (coterie.fedavg, {"dampening": 0.5}, "dampening = 0.5: it must be 0 where momentum = 0"),
        (coterie.fedavg, {"optimizer": "adam", "keep_momentum": True}, "keep_momentum = true: it must be false unless"),
        (coterie.fedavg, {"keep_momentum": True, "keep_optimizer": False}, "keep_optimizer = false: it must be left"),
        (coterie.scaffold, {"optimizer": "adam"}, 'optimizer = "adam": it must be "sgd" with scaffold, unless control'),
        (
            coterie.feddyn,
            {"proximal_weight": 0.1, "optimizer": "adamw", "weight_decay": 0.1},
            'optimizer = "adamw": it must be another with feddyn',
        ),
        (coterie.fbn, {"optimizer": "adam"}, 'server_clip_norm = 1.0: it must be "none" with optimizer = "adam"'),
        (coterie.fedsgd, {"optimizer": "adam"}, 'optimizer = "adam": fedsgd does not take it; it takes lr, lr_decay'),
        (coterie.fedmd, {"optimizer": "adam", "digest_lr": 0.1}, "digest_lr = 0.1: it must be left out with optimizer"),
        (coterie.fedh2l, {"optimizer": "adam", "mutual_lr": 0.1}, "mutual_lr = 0.1: it must be left out with optimiz"),
    ],
)
def test_what_cannot_be_done_is_refused(algorithm: Any, arguments: dict[str, Any], sentence: str) -> None:
    with pytest.raises(Mistake) as caught:
        algorithm(lr=0.1, **arguments)
    assert sentence in str(caught.value)
