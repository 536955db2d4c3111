"""benchmarks/speed/gpu.py, on a CPU and at a tiny size: what it finds, writes, leaves out and goes on with."""

import json
import math
import sys
import time
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
import torch

import coterie
from coterie.engines.sequential import Sequential
from coterie.engines.vectorised import Vectorised
from tests.common.programs import needs_compiler
from tests.federations import convolutional, dense, distance, ragged

SPEED = Path(__file__).parents[2] / "benchmarks" / "speed"
CPU = torch.device("cpu")


@pytest.fixture
def gpu(monkeypatch: pytest.MonkeyPatch) -> Iterator[ModuleType]:
    """The program as a module; it and its neighbours, whose names are common, are forgotten afterwards."""
    monkeypatch.syspath_prepend(SPEED)
    names = {path.stem for path in SPEED.glob("*.py")}
    for name in names:
        monkeypatch.delitem(sys.modules, name, raising=False)
    yield __import__("gpu")
    for name in names:
        sys.modules.pop(name, None)


def run(gpu: ModuleType, path: Path, *only: str, minutes: float = 1.0) -> int:
    options = ["--device", "cpu", "--tiny", "--results", str(path), "--minutes", str(minutes)]
    return int(gpu.main([*options, "--only", *only]))


def leave_one_part(gpu: ModuleType, monkeypatch: pytest.MonkeyPatch) -> None:
    """Let the program have the part about the 2NN alone, which takes least."""
    monkeypatch.setattr(gpu, "PARTS", [part for part in gpu.PARTS if part.name == "agreement, 2NN"])


def rows_of(path: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in path.read_text().splitlines()]


def test_engines_are_found_to_agree(
    gpu: ModuleType, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    leave_one_part(gpu, monkeypatch)
    assert run(gpu, tmp_path / "rows.jsonl", "agreement, 2NN") == 0
    *rows, end = rows_of(tmp_path / "rows.jsonl")
    assert end["whole"]
    assert [(row["engine"], row["dtype"]) for row in rows] == [
        (engine, dtype) for dtype in ("float64", "float32") for engine in ("sequential", "vectorised")
    ]
    assert all(row["agrees"] and row["same_bits"] and row["same_bits_by_default"] for row in rows)
    assert all((row["distance"] == 0) == (row["engine"] == "sequential") for row in rows)
    assert all(row["note"] == "" and row["machine"]["torch"] == torch.__version__ for row in rows)
    assert "Agreement" in capsys.readouterr().out


def test_an_engine_that_computes_something_else_is_found(
    gpu: ModuleType, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Float32 in place of float64 is already too far off."""
    leave_one_part(gpu, monkeypatch)
    true = gpu.weights_after
    wrong = partial(true, engine=Sequential(), compiled=False)
    monkeypatch.setattr(
        gpu,
        "weights_after",
        lambda case, engine, compiled: wrong(case) if isinstance(engine, Vectorised) else true(case, engine, compiled),
    )
    assert run(gpu, tmp_path / "rows.jsonl", "2NN") == 1
    differing = [row for row in rows_of(tmp_path / "rows.jsonl") if not row.get("agrees", True)]
    assert [(row["engine"], row["dtype"]) for row in differing] == [("vectorised", "float64")]


def test_a_check_that_fails_is_not_taken_for_agreement(
    gpu: ModuleType, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    leave_one_part(gpu, monkeypatch)
    monkeypatch.setattr(gpu, "weights_after", lambda case, engine, compiled: {}["no such kernel"])
    assert run(gpu, tmp_path / "rows.jsonl", "2NN") == 1
    assert rows_of(tmp_path / "rows.jsonl")[0]["error"] == "KeyError: 'no such kernel'"


@pytest.fixture
def timed(gpu: ModuleType, monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    """The program with one part, which times the smallest of the models, and an engine that cannot be made."""
    variants = {
        "sequential": gpu.sequential(),
        "vectorised": gpu.vectorised(),
        "graphs": gpu.graphs(compiled=False),
        "odd": gpu.sequential(precision="bf8"),
    }
    monkeypatch.setattr(gpu, "PARTS", [gpu.Part("times, 2nn", 1, partial(gpu.ours, "2nn", variants))])
    return gpu


def test_what_is_timed_takes_turns_and_what_fails_is_a_row(
    timed: ModuleType, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run(timed, tmp_path / "rows.jsonl", "2nn") == 0
    *rows, odd, _ = rows_of(tmp_path / "rows.jsonl")
    for row in rows:
        assert len(row["all"]) == 2
        assert row["range"] == [min(row["all"]), max(row["all"])]
        assert row["range"][0] <= row["seconds"] <= row["range"][1]
        assert row["cohort"] == 4
        assert row["peak_mb"] is None
    assert "precision" in odd["error"]
    assert "times, 2nn" in capsys.readouterr().out


def test_a_part_that_is_whole_is_not_run_again(
    timed: ModuleType, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """One that was stopped is, also where the file ends in the middle of a row; the table has its new rows."""
    path = tmp_path / "rows.jsonl"
    run(timed, path, "2nn")
    before = path.read_text()
    run(timed, path, "2nn")
    assert path.read_text() == before
    path.write_text(before[: before.rindex("{") + 9])
    run(timed, path, "2nn")
    kept = timed.read_rows(path, timed.machine(CPU), True)
    assert [row.get("engine", "whole") for row in kept].count("vectorised") == 2
    assert [row["engine"] for row in timed.newest(kept)] == ["sequential", "vectorised", "graphs", "odd"]
    assert timed.newest(kept)[0]["all"] == kept[-5]["all"]
    assert timed.read_rows(path, {**timed.machine(CPU), "torch": "1.0"}, True) == []


def test_the_minutes_end_in_the_middle_of_a_part(
    gpu: ModuleType, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """What came before is kept; what was going on and what would come after are left for the next time."""

    def slow(place: Any) -> Iterator[dict[str, Any]]:
        yield {"work": "a", "engine": "one", "error": "as an example"}
        try:
            time.sleep(20)
        except Exception:
            pytest.fail("a handler of failures has taken the end for one")

    parts = [gpu.Part("slow", 0, slow), gpu.Part("later", 0, lambda place: pytest.fail("it must not start"))]
    monkeypatch.setattr(gpu, "PARTS", parts)
    began = time.monotonic()
    run(gpu, tmp_path / "rows.jsonl", "", minutes=0.005)
    assert time.monotonic() - began < 10
    assert "the minutes are over" in capsys.readouterr().out
    assert [row.get("engine") for row in rows_of(tmp_path / "rows.jsonl")] == ["one"]


def test_a_part_does_not_start_without_enough_time(gpu: ModuleType, tmp_path: Path) -> None:
    place = gpu.Place(CPU, end=time.monotonic() + 5)
    part = gpu.Part("long", 60, lambda place: pytest.fail("it must not start"))
    assert gpu.run_parts([part], place, tmp_path / "rows.jsonl") == []


def test_without_a_gpu_the_program_says_so(
    gpu: ModuleType, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    assert gpu.main([]) == 2
    assert "--device cpu --tiny" in capsys.readouterr().err


def test_without_peers_there_are_no_rows(gpu: ModuleType, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(gpu, "VENVS", tmp_path)
    assert list(gpu.beside_peers("gpu-cnn", gpu.Place(CPU, tiny=True))) == []


def test_names_of_parts_tell_them_apart(gpu: ModuleType) -> None:
    assert len({part.name for part in gpu.PARTS}) == len(gpu.PARTS)


@pytest.mark.parametrize(("name", "outputs"), [("cnn", [3, 10]), ("resnet20", [3, 10]), ("transformer", [3, 80, 90])])
def test_models_take_their_examples(gpu: ModuleType, name: str, outputs: list[int]) -> None:
    model, (x, y) = gpu.work.make(gpu.work.WORKS[f"gpu-{name}"].model), gpu.work.examples(f"gpu-{name}", 0, 3)
    assert list(model(x).shape) == outputs
    assert float(gpu.work.loss(model(x), y).detach()) == pytest.approx(math.log(outputs[-1]), rel=0.4)


@pytest.mark.parametrize("model", [dense, convolutional])
@pytest.mark.parametrize(
    "compiled", [False, pytest.param(True, marks=[pytest.mark.long, needs_compiler])], ids=["", "compiled"]
)
def test_steps_at_fixed_places_compute_what_plain_ones_do(
    gpu: ModuleType, model: Callable[[], torch.nn.Module], compiled: bool
) -> None:
    """On a CPU a replay is another call of the same function on the same memory: what it copies is all there is."""
    clients = ragged(shape=(6,) if model is dense else (1, 8, 8))
    recipe = coterie.fedavg(lr=0.1, batch_size=5, local_epochs=2, momentum=0.5)
    options = {"rounds": 2, "rng_seed": 1}
    *_, plain = coterie.federate(recipe, model(), clients, engine=Sequential(dtype=torch.float64), **options)
    with gpu.replay_steps(compiled):
        engine = Vectorised(dtype=torch.float64, compile=True, chunk=3)
        *_, replayed = coterie.federate(recipe, model(), clients, engine=engine, **options)
    assert engine.unbatched == {}
    assert gpu.how_it_ran(engine) == ""
    assert distance(plain.weights(), replayed.weights()) < 1e-10
