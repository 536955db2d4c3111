"""Compiled steps: the same numbers, whatever happens to the compiler."""

import logging
import shutil
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from coterie.core import tree
from coterie.core.algorithm import Batches, Context
from coterie.core.task import Batch
from coterie.core.tree import Tree
from coterie.engines import compiled, vectorised
from coterie.engines.compiled import Compiled
from coterie.engines.sequential import Sequential
from coterie.engines.vectorised import Vectorised
from tests.common.programs import either_program, make, needs_compiler
from tests.common.recipes import RECIPES
from tests.common.test_every_algorithm import all_weights, run
from tests.federations import distance, ragged

CPU = torch.device("cpu")
CONTEXT = Context(*map(torch.tensor, (1.0, 4.0, 1.0, 0.1, 0)), None)


@either_program
def test_compiled_steps_agree_to_rounding(
    program: str, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Ragged, partially sampled, faulty, stateful clients with BatchNorm and dropout: 1e-10 in float64. The recipe has
    a stream that comes once, with a batch of another size for each client: those steps run as they are, and for all
    others one program serves."""
    make(program, monkeypatch)
    caplog.set_level(logging.INFO, "coterie")
    recipe = RECIPES["scaffold, option I"]
    plain = run(recipe, Sequential(dtype=torch.float64))
    fast, again = (run(recipe, Sequential(dtype=torch.float64, compile=True)) for _ in range(2))
    assert caplog.text.count("compiling a local step") == 2
    assert "uncompiled" not in caplog.text
    assert distance(all_weights(plain[-1]), all_weights(fast[-1])) < 1e-10
    assert distance(all_weights(fast[-1]), all_weights(again[-1])) == 0
    assert [r.train_loss for r in plain] == pytest.approx([r.train_loss for r in fast], abs=1e-10)


@needs_compiler
@pytest.mark.long
def test_a_compiled_step_of_many_clients_agrees_to_rounding() -> None:
    """Two clients of two and three steps: a program for both, and one for the one that goes on."""
    two = {client: examples for client, examples in ragged().items() if client in "03"}
    options = {"clients": two, "cohort": None, "faults": None}
    plain = run(RECIPES["fedprox"], Sequential(dtype=torch.float64), **options)
    engine = Vectorised(dtype=torch.float64, compile=True)
    fast = run(RECIPES["fedprox"], engine, **options)
    (programs,) = (compiled._programs for compiled in engine._compiled.values())
    assert [program is not None for program in programs.values()] == [True, True]
    assert engine.unbatched == {}
    assert distance(all_weights(plain[-1]), all_weights(fast[-1])) < 1e-10


@pytest.mark.parametrize("recipe", ["fedavg, all options", "scaffold, option I", "fedh2l, all options", "fedsgd"])
@pytest.mark.parametrize("sizes", [(7, 23, 1, 12, 16, 9), (5, 5, 5), (3, 41, 7, 18, 12, 29, 6, 2, 9)])
def test_what_fills_a_step_changes_nothing(
    recipe: str, sizes: tuple[int, ...], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Clients that have nothing to do, that are done, and short batches, as compiled steps have them (uncompiled here):
    nine clients are filled up to ten, and cut at eight, four, two and one.
    """
    monkeypatch.setattr(vectorised, "Compiled", lambda step, device: step)
    options = {"clients": ragged(sizes), "cohort": None, "rounds": 2}
    plain = run(RECIPES[recipe], Sequential(dtype=torch.float64), **options)
    engine = Vectorised(dtype=torch.float64, compile=True)
    filled = run(RECIPES[recipe], engine, **options)
    assert engine.unbatched == {}
    assert distance(all_weights(plain[-1]), all_weights(filled[-1])) < 1e-10
    assert [r.train_loss for r in plain] == pytest.approx([r.train_loss for r in filled], abs=1e-10)


def carry() -> Tree:
    return {"a": torch.arange(3.0), "inner": {"b": torch.full((3,), 2.0)}}


def batch(size: int = 2) -> Batches:
    x = torch.arange(3.0 * size).reshape(size, 3)
    return {"private": Batch(x, None, torch.arange(size), None, torch.tensor(0))}


@needs_compiler
def test_leaves_that_change_places_are_all_read_before_one_is_written() -> None:
    """a, b <- b, a + mean(x): with a = (0, 1, 2), b = 2 and mean(x) = (1.5, 2.5, 3.5)."""

    def swap(c: Tree, batches: Batches, ctx: Context) -> tuple[Tree, dict[str, Tensor]]:
        mean = batches["private"].x.mean(0)
        return {**c, "a": c["inner"]["b"], "inner": {"b": c["a"] + mean}}, {"sum": mean.sum()}

    fast, state = Compiled(swap, CPU), carry()
    after, logs = fast(state, batch(), CONTEXT)
    assert after is state
    assert torch.equal(after["a"], torch.full((3,), 2.0))
    assert torch.equal(after["inner"]["b"], torch.tensor([1.5, 3.5, 5.5]))
    assert float(logs["sum"]) == 7.5


@needs_compiler
def test_a_scaled_addition_to_a_product_keeps_its_factor() -> None:
    """TorchInductor of PyTorch 2.13 takes torch.add(a @ b, c, alpha=0.5) for a @ b + c. Here x'x has the rows (9, 12,
    15), (12, 17, 22) and (15, 22, 29), and 0.5 is added to each entry."""

    def product(c: Tree, batches: Batches, ctx: Context) -> tuple[Tree, dict[str, Tensor]]:
        x = batches["private"].x
        return {"w": torch.add(x.T @ x, torch.ones(3, 3), alpha=0.5)}, {}

    after, _ = Compiled(product, CPU)({"w": torch.zeros(3, 3)}, batch(), CONTEXT)
    assert torch.equal(after["w"][0], torch.tensor([9.5, 12.5, 15.5]))


def failing(c: Tree, batches: Batches, ctx: Context) -> tuple[Tree, dict[str, Tensor]]:
    """A step that no trace can follow: it branches on a value."""
    more = 1.0 if float(c["a"].sum()) > 0 else 2.0
    return {**c, "a": c["a"] + more}, {}


def test_a_step_that_cannot_be_compiled_runs_as_it_is_and_says_so(caplog: pytest.LogCaptureFixture) -> None:
    step, state = Compiled(failing, CPU), carry()
    for _ in range(2):
        state, _ = step(state, batch(), CONTEXT)
    assert torch.equal(state["a"], torch.arange(3.0) + 2)
    assert len([r for r in caplog.records if "uncompiled" in r.message]) == 1


def test_without_a_compiler_nothing_is_compiled(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setenv("CXX", "no-such-compiler")
    monkeypatch.setattr(compiled, "_compile", None)
    plain = run(RECIPES["fedavg"], Sequential(dtype=torch.float64))
    same = run(RECIPES["fedavg"], Sequential(dtype=torch.float64, compile=True))
    assert distance(all_weights(plain[-1]), all_weights(same[-1])) < 1e-10
    assert "no-such-compiler is not there (install it, or name another in CXX)" in caplog.text


@needs_compiler
def test_the_compiler_looked_for_is_the_one_that_torch_would_use(monkeypatch: pytest.MonkeyPatch) -> None:
    from torch._inductor.cpp_builder import get_cpp_compiler

    found = compiled.cpp_compiler()
    assert found
    assert found == shutil.which(get_cpp_compiler())
    monkeypatch.setenv("CXX", found)
    assert compiled.cpp_compiler() == found


def test_each_shape_is_compiled_once(monkeypatch: pytest.MonkeyPatch) -> None:
    made: list[int] = []

    def program(step: Any, carry: Tree, batches: Batches, ctx: Context) -> Any:
        made.append(len(batches["private"].x))
        return lambda leaves, tensors, facts: {}

    monkeypatch.setattr(compiled, "_compile", program)
    monkeypatch.setattr(compiled, "cpp_compiler", lambda: "g++")
    step = Compiled(failing, CPU)
    for size in (1, 2, 3, 3, 2, 1):
        step(carry(), batch(size), CONTEXT)
    assert made == [1, 2, 3]


def test_a_step_of_too_many_operations_is_not_compiled(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def many(c: Tree, batches: Batches, ctx: Context) -> tuple[Tree, dict[str, Tensor]]:
        return {**c, "a": c["a"] * 2 + 1 + batches["private"].x.sum()}, {}

    monkeypatch.setattr(compiled, "MAX_OPERATIONS", 3)
    monkeypatch.setattr(compiled, "cpp_compiler", lambda: "g++")
    after, _ = Compiled(many, CPU)(carry(), batch(), CONTEXT)
    assert torch.equal(after["a"], torch.arange(3.0) * 2 + 16)
    assert "operations would take too long to compile" in caplog.text
    assert tree.leaves(after)


@needs_compiler
@pytest.mark.long
def test_a_program_kept_on_the_disk_serves_the_same_step_and_no_other(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A step that differs in one number, as a model that was edited, is compiled anew; the first one is found again."""
    from torch._dynamo.utils import counters

    def scaled(factor: float) -> compiled.Step:
        return lambda c, batches, ctx: ({**c, "a": c["a"] * factor + batches["private"].x.sum()}, {})

    monkeypatch.setenv("TORCHINDUCTOR_CACHE_DIR", str(tmp_path))
    seen = []
    for factor in (2.0, 3.0, 2.0):
        counters.clear()
        after, _ = Compiled(scaled(factor), CPU)(carry(), batch(), CONTEXT)
        plain, _ = scaled(factor)(carry(), batch(), CONTEXT)
        assert torch.equal(after["a"], plain["a"])
        found = counters["inductor"]
        seen.append((found["fxgraph_cache_miss"], found["fxgraph_cache_hit"]))
    assert seen == [(1, 0), (1, 0), (0, 1)]
