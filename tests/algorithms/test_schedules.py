"""Schedules of the learning rate, against `torch.optim.lr_scheduler`, over rounds and over a round's steps."""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterator
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.optim import lr_scheduler as schedulers

import coterie
from coterie import Mistake
from coterie.algorithms.local import LocalSGD
from coterie.core.engine import Engine
from coterie.engines.sequential import Sequential
from coterie.engines.vectorised import Vectorised
from tests.algorithms.quadratics import TWO, run, w
from tests.algorithms.test_local_optimizers import one_client, smooth
from tests.federations import distance, ragged

LR, LENGTH = 0.2, 12
CASES: dict[str, dict[str, Any]] = {
    "cosine": {"lr_end": 0.05},
    "cosine to 0": {},
    "linear": {"lr_end": 0.02},
    "step": {"step_size": 3, "gamma": 0.5},
    "step by PyTorch's tenth": {"step_size": 4},
    "constant": {},
}


def torch_scheduler(case: str, optimizer: torch.optim.Optimizer, warmup: int, length: int) -> Any:
    name, extra = case.split()[0], CASES[case]
    end, rest = extra.get("lr_end", 0.0), length - warmup
    main = {
        "cosine": lambda: schedulers.CosineAnnealingLR(optimizer, rest, eta_min=end),
        "linear": lambda: schedulers.LinearLR(optimizer, 1.0, end / LR, rest),
        "step": lambda: schedulers.StepLR(optimizer, extra["step_size"], extra.get("gamma", 0.1)),
        "constant": lambda: schedulers.ConstantLR(optimizer, 1.0),
    }[name]()
    if not warmup:
        return main
    rise = schedulers.LinearLR(optimizer, 1 / (warmup + 1), total_iters=warmup)
    return schedulers.SequentialLR(optimizer, [rise, main], [warmup])


def torch_rates(case: str, warmup: int, length: int) -> Iterator[float]:
    """The learning rate of one step of PyTorch after another."""
    optimizer = torch.optim.SGD([nn.Parameter(torch.zeros(1))], LR)
    scheduler = torch_scheduler(case, optimizer, warmup, length)
    for _ in range(length):
        yield optimizer.param_groups[0]["lr"]
        optimizer.step()
        scheduler.step()


def options(case: str, over: str, warmup: int) -> dict[str, Any]:
    name = case.split()[0]
    length = {"schedule_length": LENGTH} if name in ("cosine", "linear") and over == "rounds" else {}
    return {"schedule": name, "schedule_over": over, "warmup": warmup, **length, **CASES[case]}


@pytest.mark.filterwarnings("ignore:The epoch parameter")
@pytest.mark.parametrize("case", CASES)
@pytest.mark.parametrize("warmup", [0, 3])
def test_rounds_have_the_rates_of_torch(case: str, warmup: int) -> None:
    local = LocalSGD(lr=LR, **options(case, "rounds", warmup))  # type: ignore[arg-type]
    rates = [local.lr(round) for round in range(1, LENGTH + 1)]
    assert rates == pytest.approx(list(torch_rates(case, warmup, LENGTH)), abs=1e-14)


@pytest.mark.filterwarnings("ignore:The epoch parameter")
@pytest.mark.parametrize("case", CASES)
@pytest.mark.parametrize("engine", [Sequential, Vectorised])
def test_steps_have_the_rates_of_torch(case: str, engine: Callable[..., Engine]) -> None:
    """A round of `LENGTH` full-batch steps of one client, with warm-up, is PyTorch's loop; and so is the next round."""
    model, (x, y) = smooth(), one_client()["0"].tensors()
    recipe = coterie.fedavg(lr=LR, local_steps=LENGTH, batch_size="full", **options(case, "steps", 3))
    federation = coterie.federate(
        recipe, copy.deepcopy(model), one_client(), rounds=2, engine=engine(dtype=torch.float64)
    )
    for last in federation:
        optimizer = torch.optim.SGD(model.parameters(), LR)
        scheduler = torch_scheduler(case, optimizer, 3, LENGTH)
        for _ in range(LENGTH):
            optimizer.zero_grad()
            nn.functional.cross_entropy(model(x), y).backward()
            optimizer.step()
            scheduler.step()
        assert distance(last.weights(), dict(model.state_dict())) < 1e-12


def test_a_schedule_stays_at_its_end() -> None:
    local = LocalSGD(lr=LR, schedule="cosine", schedule_length=4, lr_end=0.05)
    assert [local.lr(round) for round in (5, 6, 50)] == pytest.approx([0.05] * 3)


def test_decay_multiplies_the_schedule() -> None:
    local = LocalSGD(lr=LR, lr_decay=0.5, schedule="linear", schedule_length=4)
    assert [local.lr(round) for round in (1, 2, 3)] == pytest.approx([0.2, 0.2 * 0.5 * 0.75, 0.2 * 0.25 * 0.5])


def test_a_function_by_hand() -> None:
    """The rate 1/2 times 1 / (step + 1) times 1 / round. Client 0 (a, b = 1, 4): 0 -> 2, and with 1/4 to 5/2."""
    recipe = coterie.fedavg(lr=0.5, local_steps=2, schedule=lambda round, step: 1 / ((step + 1) * round))
    one, two = run(recipe, {"0": TWO["0"]}, rounds=2)
    assert w(one) == 2.5
    assert w(two) == 2.5 + 1.5 / 4 + (1.5 - 1.5 / 4) / 8


def later_is_slower(round: Tensor, step: Tensor) -> Tensor:
    return torch.where(step < 2, 1.0, 0.5) / round


@pytest.mark.parametrize("schedule", [later_is_slower, lambda round, step: 0.5])
def test_engines_agree_on_a_function(schedule: Callable[[Any, Any], Any]) -> None:
    recipe = coterie.fedavg(lr=0.1, local_epochs=2, batch_size=5, schedule=schedule, momentum=0.5)
    vectorised = Vectorised(dtype=torch.float64)
    found = [
        list(coterie.federate(recipe, smooth(), ragged(), rounds=3, engine=engine))[-1]
        for engine in (Sequential(dtype=torch.float64), vectorised)
    ]
    assert vectorised.unbatched == {}
    assert distance(found[0].weights(), found[1].weights()) < 1e-10


def test_clients_with_unlike_numbers_of_steps_each_end_their_own_schedule() -> None:
    """Linear to 0 over a client's own K steps. Client 0 (1, 4) takes 2 steps with 1/2 and 1/4: 0 -> 2 -> 5/2. Client 1
    (2, -1) has one step with 1/2: 0 -> -1. Weighted by 3 and 1 examples of batches of 2."""
    recipe = coterie.fedavg(lr=0.5, batch_size=2, schedule="linear", schedule_over="steps")
    assert w(run(recipe)[-1]) == 3 / 4 * 2.5 - 1 / 4


def branches(round: Tensor, step: Tensor) -> float:
    return 1.0 if step < 2 else 0.5


@pytest.mark.parametrize(
    ("algorithm", "arguments", "sentence"),
    [
        (coterie.fedavg, {"schedule": "cosine"}, 'schedule_length: it is missing; the schedule "cosine" ends after'),
        (coterie.fedavg, {"schedule": "cosin"}, '"constant", "cosine", "linear" or "step", or a function'),
        (coterie.fedavg, {"schedule": "step"}, 'step_size: the schedule "step" needs it'),
        (coterie.fedavg, {"schedule_length": 5}, 'schedule_length = 5: the schedule "constant" does not take it'),
        (coterie.fedavg, {"schedule": "linear", "gamma": 0.5}, 'gamma = 0.5: the schedule "linear" does not take it'),
        (
            coterie.fedavg,
            {"schedule": "linear", "schedule_length": 5, "lr_end": 2.0},
            "lr_end = 2.0: it must be at most lr",
        ),
        (
            coterie.fedavg,
            {"schedule": "linear", "schedule_length": 5, "warmup": 5},
            "schedule_length = 5: it must be more than warmup = 5",
        ),
        (coterie.fedavg, {"schedule": branches}, "choose with torch.where instead of if"),
        (coterie.fedavg, {"schedule": lambda round, step: -1.0}, "one factor, 0 or more"),
        (coterie.fedavg, {"schedule": lambda round, step: 1.0, "warmup": 2}, "warmup = 2: it must be left out"),
        (coterie.fedmuon, {"warmup": 2}, "warmup = 2: it must be left out with fedmuon over rounds"),
        (
            coterie.scaffold,
            {"schedule": "linear", "schedule_over": "steps"},
            'schedule_over = "steps": it must be "rounds" with scaffold, unless control = "gradient"',
        ),
        (coterie.scaffold, {"schedule": later_is_slower}, "choose a schedule over rounds with scaffold"),
        (coterie.scaffold, {"schedule": "linear", "schedule_length": 5}, "lr_end = 0.0: it must be above 0 with scaff"),
        (
            coterie.fbn,
            {"warmup": 2, "schedule_over": "steps"},
            'must be "rounds" with fbn, unless server_clip_norm = "no',
        ),
        (coterie.fedh2l, {"warmup": 2, "schedule_over": "steps"}, 'must be "rounds" with fedh2l, whose mutual steps'),
        (coterie.fedmd, {"schedule": later_is_slower}, "choose a schedule over rounds with fedmd"),
    ],
)
def test_what_cannot_be_done_is_refused(algorithm: Any, arguments: dict[str, Any], sentence: str) -> None:
    with pytest.raises(Mistake) as caught:
        algorithm(lr=0.1, **arguments)
    assert sentence in str(caught.value)


def test_fbns_kernels_follow_a_schedule_to_its_end() -> None:
    """Muon's step at the server has the length of the schedule's factor: none where it is 0."""
    torch.manual_seed(0)
    model = nn.Sequential(nn.Conv2d(1, 2, 3), nn.BatchNorm2d(2), nn.Flatten(), nn.Linear(2 * 4 * 4, 3))
    recipe = coterie.fbn(
        lr=0.1, local_steps=1, schedule="linear", schedule_length=2, warm_start=0, server="muon", variant="paper"
    )
    clients = ragged(shape=(1, 6, 6))
    rounds = list(coterie.federate(recipe, model, clients, rounds=4))
    kernels = [round.weights()["0.weight"] for round in rounds]
    moved = [
        float((b - a).norm() / a.norm()) for a, b in zip([model[0].weight.detach(), *kernels], kernels, strict=False)
    ]
    assert moved == pytest.approx([0.03, 0.015, 0.0, 0.0], abs=1e-6)
