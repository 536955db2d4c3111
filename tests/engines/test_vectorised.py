"""Many clients at once: the same as one after another, and a way out for models that cannot be batched."""

import logging
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest
import torch
from torch import Tensor, nn

import coterie
from coterie import Algorithm, Examples, Mistake, Recipe, Round, Task
from coterie.core import tree
from coterie.core.engine import Engine
from coterie.engines import vectorised
from coterie.engines.sequential import Sequential
from coterie.engines.vectorised import Vectorised
from tests.federations import apart, convolutional, dense, distance, ragged


class Recurrent(nn.Module):
    """Reads a sequence with a layer that has no batching rule."""

    def __init__(self) -> None:
        super().__init__()
        self.cell, self.head = nn.LSTM(2, 4, batch_first=True), nn.Linear(4, 3)

    def forward(self, x: Tensor) -> Tensor:
        return self.head(self.cell(x.unflatten(1, (3, 2)))[0][:, -1])


class Branching(nn.Module):
    """Looks at a number to decide what to compute."""

    def __init__(self) -> None:
        super().__init__()
        self.head = nn.Linear(6, 3)

    def forward(self, x: Tensor) -> Tensor:
        y = self.head(x)
        return 2 * y if y.sum() > 0 else y


class Drawing(nn.Module):
    """Draws from torch's own generator."""

    def __init__(self) -> None:
        super().__init__()
        self.head = nn.Linear(6, 3)

    def forward(self, x: Tensor) -> Tensor:
        return self.head(nn.functional.dropout(x, 0.5, self.training))


STUBBORN: dict[str, tuple[Callable[[], nn.Module], str]] = {
    "LSTM": (Recurrent, "nn.LSTM has no batching rule"),
    "control flow": (Branching, "data-dependent control flow"),
    "torch's generator": (Drawing, "random"),
}


def make(kind: Callable[[], nn.Module]) -> nn.Module:
    torch.manual_seed(3)
    return kind().double()


def run(engine: Engine, model: nn.Module, recipe: Recipe | None = None, **options: Any) -> Round:
    recipe = recipe or coterie.scaffold(lr=0.1, batch_size=5, local_epochs=2)
    clients = options.pop("clients", None) or ragged()
    return list(coterie.federate(recipe, model, clients, **{"rounds": 2, "rng_seed": 1} | options, engine=engine))[-1]


@pytest.mark.parametrize(("kind", "why"), STUBBORN.values(), ids=STUBBORN)
def test_a_model_that_cannot_be_batched_is_run_client_by_client(
    kind: Callable[[], nn.Module], why: str, caplog: pytest.LogCaptureFixture
) -> None:
    """The reason is kept and logged once, and the result is the sequential engine's."""
    engine = Vectorised(dtype=torch.float64)
    with caplog.at_level(logging.WARNING):
        batched = run(engine, make(kind))
    assert list(engine.unbatched) == ["model"]
    assert why in engine.unbatched["model"]
    assert sum("cannot be batched" in record.message for record in caplog.records) == 1
    assert distance(batched.weights(), run(Sequential(dtype=torch.float64), make(kind)).weights()) < 1e-12


class Activated(nn.BatchNorm1d):
    """A BatchNorm with a forward of its own, as timm has; it knows of no mask."""

    def forward(self, x: Tensor) -> Tensor:
        return super().forward(x).relu()


COUNTING = {
    "BatchNorm": lambda: nn.Sequential(nn.Linear(6, 8), Activated(8), nn.Linear(8, 3)),
    "InstanceNorm": lambda: nn.Sequential(
        nn.Unflatten(1, (2, 3)), nn.InstanceNorm1d(2, track_running_stats=True), nn.Flatten(), nn.Linear(6, 3)
    ),
}
"""Layers to which padding is as real as any row."""


@pytest.mark.parametrize("kind", COUNTING.values(), ids=COUNTING)
@pytest.mark.parametrize("engine", [Vectorised, Sequential], ids=["vectorised", "sequential"])
@pytest.mark.parametrize("compile", [False, True], ids=["", "compiled"])
def test_what_would_count_padding_is_given_none(
    kind: Callable[[], nn.Module], engine: Callable[..., Engine], compile: bool, caplog: pytest.LogCaptureFixture
) -> None:
    """Last batches of two and four examples stay as short as they are, whatever is asked for."""
    clients = ragged((7, 12, 14))
    with caplog.at_level(logging.WARNING):
        asked = run(engine(dtype=torch.float64, compile=compile), make(kind), clients=clients)
    plain = run(Sequential(dtype=torch.float64), make(kind), clients=clients)
    assert distance(asked.weights(), plain.weights()) < 1e-12
    if compile:
        assert any("uncompiled" in r.message and "would count padding" in r.message for r in caplog.records)


def test_a_model_that_would_count_padding_does_not_keep_others_from_being_compiled() -> None:
    """Neither another model of the same federation, nor the model of a later one."""
    engine, clients = Sequential(dtype=torch.float64, compile=True), ragged((7, 12))
    normed, plain = make(COUNTING["BatchNorm"]), make(Branching)
    coterie.plan(coterie.independent(lr=0.1), [normed, plain], clients, rounds=1, engine=engine)
    assert [engine._compiles(architecture) for architecture in "01"] == [False, True]
    coterie.plan(coterie.fedavg(lr=0.1), plain, clients, rounds=1, engine=engine)
    assert engine._compiles("model")


def test_another_federation_starts_without_prejudice() -> None:
    engine = Vectorised(dtype=torch.float64)
    run(engine, make(Branching))
    assert engine.unbatched
    run(engine, dense())
    assert engine.unbatched == {}


def test_what_is_wrong_with_an_algorithm_is_not_hidden_by_the_way_out() -> None:
    """A mistake inside a step, and a bug in one with or without a word about it, reach the caller."""

    def broken(error: Exception) -> Recipe:
        def bind(task: Task) -> Algorithm:
            base = coterie.fedavg(lr=0.1)(task)

            def step(carry: Any, batches: Any, ctx: Any) -> Any:
                raise error

            return replace(
                base,
                client=replace(
                    base.client,
                    step=step,
                ),
            )

        return bind

    for error in (Mistake("algorithm.lr = 7: too much"), RuntimeError("shapes"), KeyError("w"), NotImplementedError()):
        with pytest.raises(type(error)) as caught:
            run(Vectorised(), dense(), broken(error))
        assert caught.value is error


@pytest.mark.parametrize("model", [dense, convolutional])
@pytest.mark.parametrize("chunk", [1, 3, 4, 5, 100])
def test_the_size_of_a_chunk_changes_rounding_at_most(model: Callable[[], nn.Module], chunk: int) -> None:
    """Clients of 7, 23, 1, 12, 16 and 9 examples in batches of 5: short batches, and unequal numbers of steps."""
    clients = ragged(shape=(6,) if model is dense else (1, 8, 8))
    engine = Vectorised(dtype=torch.float64, chunk=chunk)
    reference = run(Sequential(dtype=torch.float64), model(), clients=clients)
    assert distance(reference.weights(), run(engine, model(), clients=clients).weights()) < 1e-10
    assert engine.unbatched == {}


def test_a_small_budget_makes_chunks_of_one(monkeypatch: pytest.MonkeyPatch) -> None:
    sizes: list[int] = []
    real = Vectorised._run_batched
    monkeypatch.setattr(
        Vectorised, "_run_batched", lambda self, a, b, jobs: sizes.append(len(jobs)) or real(self, a, b, jobs)
    )
    run(Vectorised(), dense(), rounds=1)
    monkeypatch.setattr(vectorised, "CHUNK_BYTES", 1)
    run(Vectorised(), dense(), rounds=1)
    assert sizes == [6, 1, 1, 1, 1, 1, 1]


def limit_memory(monkeypatch: pytest.MonkeyPatch, most: int, error: Exception) -> list[int]:
    """Let batched work fail for more than `most` clients; return the list to which the sizes of chunks are added."""
    sizes: list[int] = []
    real = Vectorised._run_batched

    def run_batched(self: Vectorised, algorithm: Algorithm, broadcast: Any, jobs: list[Any]) -> Any:
        sizes.append(len(jobs))
        if len(jobs) > most:
            raise error
        return real(self, algorithm, broadcast, jobs)

    monkeypatch.setattr(Vectorised, "_run_batched", run_batched)
    return sizes


@pytest.mark.parametrize(
    "error",
    [
        torch.OutOfMemoryError("CUDA out of memory."),
        RuntimeError("[enforce fail at alloc_cpu.cpp] DefaultCPUAllocator: can't allocate memory: you tried"),
        MemoryError(),
    ],
    ids=["on a GPU", "on a CPU", "in Python"],
)
def test_a_chunk_that_does_not_fit_into_memory_is_run_in_halves(
    error: Exception, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """Six clients do not fit, three do. The model can be batched, so nothing is left to the sequential engine."""
    sizes, engine = limit_memory(monkeypatch, 3, error), Vectorised(dtype=torch.float64)
    with caplog.at_level(logging.WARNING):
        halved = run(engine, dense(), rounds=1)
    assert sizes == [6, 3, 3]
    assert engine.unbatched == {}
    assert "6 clients at once do not fit into memory: running 3 at once; set chunk = 3" in caplog.text
    plain = run(Sequential(dtype=torch.float64), dense(), rounds=1)
    assert distance(halved.weights(), plain.weights()) < 1e-10


def test_one_client_that_does_not_fit_into_memory_is_a_mistake(monkeypatch: pytest.MonkeyPatch) -> None:
    limit_memory(monkeypatch, 0, torch.OutOfMemoryError("CUDA out of memory."))
    with pytest.raises(Mistake, match="the memory of cpu is too small for the work of one client"):
        run(Vectorised(), dense(), rounds=1)


def test_memory_of_one_s_own_or_a_common_pool_is_the_same_bit_for_bit() -> None:
    common, own = run(Vectorised(), dense()), run(Vectorised(), dense(), clients=apart(ragged()))
    assert distance(common.weights(), own.weights()) == 0


def test_replies_come_in_the_order_of_the_cohort() -> None:
    """Not in that of the chunks, which is by the number of steps: sums are taken in the cohort's order."""
    last = run(Vectorised(chunk=2), dense(), keep_updates=True, rounds=1)
    assert last.updates is not None
    assert list(last.updates) == list(last.cohort) == [str(k) for k in range(6)]


def test_a_client_s_state_does_not_hold_on_to_its_chunk() -> None:
    """Its memory is that of its own numbers, or a population's states would each keep a whole chunk alive."""
    last = run(Vectorised(), dense(), coterie.independent(lr=0.1, momentum=0.5))
    for client in last.plan.ids:
        for leaf in tree.leaves(last.store.get(client) or {}):
            assert leaf.untyped_storage().nbytes() == leaf.nbytes


@pytest.mark.parametrize("engine", [Sequential, Vectorised])
def test_numbers_are_float32_unless_told_otherwise(engine: Callable[..., Engine]) -> None:
    """Data and a model in float64 come in; whole numbers stay whole."""
    last = run(engine(), dense())
    kinds = {name: leaf.dtype for name, leaf in last.weights().items()}
    assert kinds.pop("1.num_batches_tracked") == torch.int64
    assert set(kinds.values()) == {torch.float32}
    assert {leaf.dtype for leaf in last.state["control"].values()} == {torch.float32}
    assert {leaf.dtype for leaf in last.weights("3").values() if leaf.is_floating_point()} == {torch.float32}
    wide = run(engine(dtype=torch.float64), dense().float())
    assert {leaf.dtype for leaf in wide.weights().values() if leaf.is_floating_point()} == {torch.float64}


def test_tokens_stay_whole_numbers() -> None:
    g = torch.Generator().manual_seed(0)
    pool = Examples(torch.randint(9, (30, 4), generator=g), torch.randint(9, (30, 4), generator=g))
    clients = {str(k): pool.take(torch.arange(30)[k::3][: 10 - k]) for k in range(3)}
    model = nn.Sequential(nn.Embedding(9, 5), nn.Linear(5, 9)).double()
    ends = [run(e, model, clients=clients) for e in (Sequential(dtype=torch.float64), Vectorised(dtype=torch.float64))]
    assert distance(ends[0].weights(), ends[1].weights()) < 1e-12
    assert ends[1].train_loss == pytest.approx(ends[0].train_loss, abs=1e-12)


def in_place(task: Task) -> Algorithm:
    """FedAvg whose step writes into its carry, as the contract allows."""
    base = coterie.fedavg(lr=0.1, batch_size=5)(task)

    def step(carry: Any, batches: Any, ctx: Any) -> Any:
        grads, buffers, logs = task.gradient(carry["params"], carry["buffers"], batches["private"])
        for name, p in carry["params"].items():
            p.sub_(ctx.lr * grads[name])
        return {**carry, "buffers": buffers}, logs

    return replace(
        base,
        client=replace(
            base.client,
            step=step,
        ),
    )


@pytest.mark.parametrize("engine", [Sequential, Vectorised])
def test_a_step_may_write_into_its_carry(engine: Callable[..., Engine]) -> None:
    """And nothing else is written: not the server's state, not the next client's start."""
    start = dense()
    writing = engine(dtype=torch.float64)
    plain = run(engine(dtype=torch.float64), dense(), coterie.fedavg(lr=0.1, batch_size=5))
    written = run(writing, start, in_place)
    assert getattr(writing, "unbatched", {}) == {}
    assert distance(plain.weights(), written.weights()) < 1e-12
    assert distance(dict(start.state_dict()), dict(dense().state_dict())) == 0


class MovingAverage(nn.Module):
    """A model of a user's own that keeps the mean of its batches in a buffer."""

    average: Tensor

    def __init__(self) -> None:
        super().__init__()
        self.layer = nn.Linear(6, 3)
        self.register_buffer("average", torch.zeros(6))

    def forward(self, x: Tensor) -> Tensor:
        if self.training:
            self.average.mul_(0.5).add_(0.5 * x.detach().mean(0))
        return self.layer(x - self.average)


class GradientInside(nn.Module):
    """A model whose forward takes a gradient with PyTorch's tape."""

    def __init__(self) -> None:
        super().__init__()
        self.layer = nn.Linear(6, 3)

    def forward(self, x: Tensor) -> Tensor:
        with torch.enable_grad():
            x = x.clone().requires_grad_()
            slope = torch.autograd.grad(self.layer(x).tanh().sum(), x, create_graph=True)[0]
        return self.layer(x + slope)


@pytest.mark.parametrize("make", [MovingAverage, GradientInside])
def test_a_model_of_ones_own_trains_as_on_the_sequential_engine(make: type[nn.Module]) -> None:
    """Padding entered its statistics without a word; a forward that torch.func cannot differentiate was a traceback."""
    torch.manual_seed(0)
    model, ends = make(), []
    for engine in (Sequential(dtype=torch.float64), Vectorised(dtype=torch.float64)):
        *_, last = coterie.federate(coterie.fedavg(lr=0.1, batch_size=4), model, ragged(), rounds=2, engine=engine)
        ends.append(last.weights())
    assert all(torch.allclose(value, ends[1][name], rtol=0, atol=1e-12) for name, value in ends[0].items())
