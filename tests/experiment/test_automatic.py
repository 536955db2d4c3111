"""What "auto" chooses, and that it is a function of work and machine alone."""

from dataclasses import replace

import pytest
import torch
from torch import nn

import coterie
from coterie.experiment.automatic import PROCESS, Machine, Work, choose, work_of
from coterie.models.registry import build
from tests.federations import dense, ragged

LAPTOP = Machine(cores=2, memory=2**34, device="cpu", compiler=True)
LONG = Work(cohort=10, steps=600_000, flops=1.2e7, layers=6)


@pytest.mark.parametrize(
    ("work", "machine", "expected"),
    [
        (LONG, LAPTOP, ("sequential", True, 2)),
        (replace(LONG, steps=6_000), LAPTOP, ("sequential", False, 1)),
        (LONG, replace(LAPTOP, compiler=False), ("sequential", False, 2)),
        (LONG, replace(LAPTOP, cores=16), ("sequential", True, 10)),
        (replace(LONG, cohort=1), LAPTOP, ("sequential", True, 1)),
        (LONG, replace(LAPTOP, cores=16, memory=2 * 4 * PROCESS), ("sequential", True, 4)),
        (replace(LONG, data=3 * PROCESS), replace(LAPTOP, cores=16, memory=2 * 8 * PROCESS), ("sequential", True, 2)),
        (LONG, replace(LAPTOP, memory=1), ("sequential", True, 1)),
        (replace(LONG, layers=200), LAPTOP, ("sequential", False, 2)),
        (replace(LONG, uncompilable="a loop"), LAPTOP, ("sequential", False, 2)),
        (LONG, replace(LAPTOP, device="cuda"), ("vectorised", False, 1)),
        (replace(LONG, unbatchable="an LSTM"), replace(LAPTOP, device="cuda"), ("sequential", False, 1)),
    ],
)
def test_choices(work: Work, machine: Machine, expected: tuple[str, bool, int]) -> None:
    choice = choose(work, machine)
    assert (choice.name, choice.compile, choice.workers) == expected
    assert choose(work, machine) == choice


def test_the_reason_is_told() -> None:
    assert "no C++ compiler" in choose(LONG, replace(LAPTOP, compiler=False)).steps
    assert "a loop" in choose(replace(LONG, uncompilable="a loop"), LAPTOP).steps
    assert "an LSTM" in choose(replace(LONG, unbatchable="an LSTM"), replace(LAPTOP, device="cuda")).order


def test_the_work_of_a_plan() -> None:
    """Clients of 7, 23, 1, 12, 16 and 9 examples in batches of 5 take 2, 5, 1, 3, 4 and 2 steps, 17 / 6 each; three of
    them in each of ten rounds make 85. A step's batch has (10 + 25 + 1 + 15 + 20 + 10) / 17 examples on average, whose
    forward pass is 2 (6 x 8 + 8 x 3) operations."""
    model = dense()
    plan = coterie.plan(coterie.fedavg(lr=0.1, batch_size=5), model, ragged(), rounds=10, cohort=0.5)
    work = work_of(plan, [model])
    assert (work.cohort, work.steps, work.layers) == (3, 85, 5)
    assert work.flops == pytest.approx(3 * 144 * 81 / 17)
    assert (work.uncompilable, work.unbatchable) == ("", "")
    assert work_of(plan, [model]) == work
    assert model.training


@pytest.mark.parametrize(
    ("recipe", "peepholes", "why"),
    [
        (coterie.fedavg(lr=0.1, batch_size=5), True, "recurrent"),
        (coterie.fedavg(lr=0.1, batch_size=5), False, "recurrent"),
        (coterie.fedsgd(lr=0.1), None, "full batches"),
    ],
)
def test_what_is_not_compiled(recipe: coterie.Recipe, peepholes: bool | None, why: str) -> None:
    tokens = torch.randint(7, (12, 4))
    model: nn.Module = dense()
    clients = ragged()
    if peepholes is not None:
        model = build("char_lstm", [4], 7, 0, hidden=5, layers=1, peepholes=peepholes)
        clients = {"a": coterie.Examples(tokens, tokens)}
    work = work_of(coterie.plan(recipe, model, clients, rounds=1), [model])
    assert why in work.uncompilable
    assert bool(work.unbatchable) == (peepholes is False)


def test_a_layer_that_would_count_padding_is_neither_compiled_nor_batched() -> None:
    model = nn.Sequential(nn.Unflatten(1, (2, 3)), nn.InstanceNorm1d(2, track_running_stats=True), nn.Flatten())
    work = work_of(coterie.plan(coterie.fedavg(lr=0.1), model.append(nn.Linear(6, 3)), ragged(), rounds=1), [model])
    assert "would count padding" in work.uncompilable
    assert "would count padding" in work.unbatchable


@pytest.mark.parametrize(
    ("name", "shape", "forward"),
    [
        ("2nn", (1, 28, 28), 2 * (784 * 200 + 200 * 200 + 200 * 10)),
        ("cnn", (1, 28, 28), 2 * (784 * 25 * 32 + 196 * 800 * 64 + 3136 * 512 + 5120)),
        ("char_lstm", (80,), 80 * 2 * (4 * 256 * (8 + 256) + 4 * 256 * (256 + 256))),
    ],
)
def test_operations_of_a_forward_pass(name: str, shape: tuple[int, ...], forward: float) -> None:
    """Products by hand, but for the LSTM's output layer, which is a small part."""
    model = build(name, shape, 10, 0, **({"peepholes": False} if name == "char_lstm" else {}))
    x = torch.zeros(1, *shape, dtype=torch.int64 if name == "char_lstm" else torch.float32)
    clients = {"a": coterie.Examples(x, x if name == "char_lstm" else torch.zeros(1, dtype=torch.int64))}
    work = work_of(coterie.plan(coterie.fedavg(lr=0.1), model, clients, rounds=1), [model])
    assert work.flops == pytest.approx(3 * forward, rel=0.02)


def test_a_client_at_work_takes_its_weights_and_what_lies_between_its_layers() -> None:
    """Two layers of 6 -> 3 -> 2 in float32 with 29 numbers, four times; the 3 + 2 that they give, forward and backward,
    for each of 5 examples. The pool of 20 examples that both clients share is held once.
    """
    model = nn.Sequential(nn.Linear(6, 3), nn.Linear(3, 2))
    pool = coterie.Examples(torch.zeros(20, 6), torch.zeros(20, dtype=torch.int64))
    clients = {"a": pool.take(torch.arange(10)), "b": pool.take(torch.arange(10, 20))}
    work = work_of(coterie.plan(coterie.fedavg(lr=0.1, batch_size=5), model, clients, rounds=1), [model])
    assert work.nbytes == 4 * 29 * 4 + 2 * 5 * 5 * 4
    assert work.data == 20 * (6 * 4 + 8)


def test_several_models_are_compiled_apart_and_batched_where_one_can_be() -> None:
    one, other = nn.Linear(6, 3), nn.Sequential(nn.Linear(6, 9), nn.Linear(9, 3))
    plan = coterie.plan(coterie.independent(lr=0.1), [one, other], ragged(), rounds=1)
    work = work_of(plan, [one, other])
    assert work.layers == 3
    alone = [work_of(coterie.plan(coterie.independent(lr=0.1), m, ragged(), rounds=1), [m]) for m in (one, other)]
    assert work.flops == sum(each.flops for each in alone) / 2


def test_a_population_is_not_counted_client_by_client() -> None:
    """Ten clients are looked at, however many there are."""
    looked_at: list[str] = []

    class Lazy(dict[str, coterie.Examples]):
        def __getitem__(self, client: str) -> coterie.Examples:
            looked_at.append(client)
            return ragged()["0"]

    clients = Lazy(dict.fromkeys(map(str, range(1000))))  # type: ignore[arg-type]
    work_of(coterie.plan(coterie.fedavg(lr=0.1), dense(), clients, rounds=1, cohort=5), [dense()])
    assert len(looked_at) == 10
