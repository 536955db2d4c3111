"""Whole rehearsals by the command: every algorithm's weights are the simulation's, whatever is killed."""

import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

pytest.importorskip("nvflare")

from tests.silos.rehearsal import processes_of, wait_until

SAME = "the weights are the simulation's, bit for bit"
DIGITS = """
rounds = 4
[data]
source = "digits"
num_clients = 3
examples_per_client = 120
[model]
name = "mlp"
[algorithm]
name = "fedavg"
lr = 0.1
"""
CASES = {
    "scaffold": ["algorithm.name=scaffold"],
    "feddyn": ["algorithm.name=feddyn", "algorithm.proximal_weight=0.1"],
    "fbn, one step": ["algorithm.name=fbn", "model.name=resnet20", "model.width=2", "algorithm.local_steps=1"],
    "fbn, several steps": ["algorithm.name=fbn", "model.name=resnet20", "model.width=2", "algorithm.local_steps=3"],
    "fedbn": ["algorithm.name=fedbn", "model.name=resnet20", "model.width=2"],
    "three models": [
        'model.names=["logistic", "mlp", "cnn"]',
        "algorithm.name=fedh2l",
        "seed_set.source=digits",
        "seed_set.examples=40",
    ],
}


BEGUN: list["subprocess.Popen[str]"] = []


@pytest.fixture(autouse=True)
def end_with_the_test() -> Iterator[None]:
    """End the rehearsals that a test left running, as one that fails does."""
    yield
    for process in BEGUN:
        if process.poll() is None:
            process.kill()  # its silos notice
            process.wait()
    BEGUN.clear()


def begin(folder: Path, *arguments: str) -> "subprocess.Popen[str]":
    """Begin a rehearsal of the digits with three silos."""
    (folder / "digits.toml").write_text(DIGITS)
    command = [sys.executable, "-m", "coterie", "deploy", "rehearse", "digits.toml", *arguments, "--out", "run"]
    environment = os.environ | {"PYTHONPATH": os.pathsep.join(filter(None, sys.path)), "OMP_NUM_THREADS": "1"}
    process = subprocess.Popen(
        command, cwd=folder, env=environment, text=True, stdout=subprocess.PIPE, stderr=subprocess.STDOUT
    )
    BEGUN.append(process)
    return process


def end(process: "subprocess.Popen[str]") -> str:
    out, _ = process.communicate(timeout=400)
    assert process.returncode == 0, out
    return out.splitlines()[-1]


def wait_for_rounds(folder: Path, number: int, seconds: float = 600.0) -> None:
    path = folder / "run/rounds.jsonl"
    assert wait_until(lambda: path.exists() and len(path.read_text().splitlines()) >= number, seconds)


@pytest.mark.parametrize("name", CASES)
def test_the_weights_are_those_of_the_simulation(tmp_path: Path, name: str) -> None:
    assert end(begin(tmp_path, *CASES[name])) == SAME
    if name in ("three models", "fedbn"):
        assert len(list((tmp_path / "run/clients").glob("*.safetensors"))) == 3
    assert wait_until(lambda: not processes_of(tmp_path), 15.0)


def stop(process: "subprocess.Popen[str]", number: signal.Signals) -> None:
    process.send_signal(number)
    process.communicate(timeout=60)


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGINT, signal.SIGTERM])
def test_a_coordinator_that_is_stopped_goes_on_with_the_same_weights(tmp_path: Path, number: signal.Signals) -> None:
    """SCAFFOLD, whose clients keep states at their silos; nothing is left running."""
    arguments = ["rounds=40", "algorithm.name=scaffold"]
    process = begin(tmp_path, *arguments)
    wait_for_rounds(tmp_path, 5)
    stop(process, number)
    assert wait_until(lambda: not processes_of(tmp_path), 20.0)
    assert len((tmp_path / "run/rounds.jsonl").read_text().splitlines()) < 40
    assert end(begin(tmp_path, *arguments, "--resume")) == SAME


def children_of(parent: int) -> set[int]:
    stats = {int(p.parent.name): p.read_text() for p in Path("/proc").glob("[0-9]*/stat") if p.exists()}
    return {pid for pid, stat in stats.items() if int(stat.rpartition(")")[2].split()[1]) == parent}


def serving(folder: Path) -> int:
    """The process of `coterie deploy serve` at the first silo."""
    (found,) = processes_of(folder / "run/silos/silo-1", "serve")
    return found


def kill_child(folder: Path) -> None:
    """Kill the process that trains at the first silo."""
    for pid in children_of(serving(folder)):
        if b"spawn_main" in Path(f"/proc/{pid}/cmdline").read_bytes():
            os.kill(pid, signal.SIGKILL)


@pytest.mark.parametrize("kill", [kill_child])
def test_a_silo_whose_training_dies_is_in_again(tmp_path: Path, kill: Callable[[Path], None]) -> None:
    """The update of one round at most does not count, and the reason is on record."""
    process = begin(tmp_path, "rounds=60")
    wait_for_rounds(tmp_path, 5)
    kill(tmp_path)
    out, _ = process.communicate(timeout=400)
    assert process.returncode == 0, out
    text = (tmp_path / "run/rounds.jsonl").read_text()
    assert len(text.splitlines()) == 60
    dropped = re.findall(r'"why": "([^"]*)"', text)
    assert len(dropped) <= 2
    assert all("was killed" in why for why in dropped)
    assert '"reached": 3' in text.splitlines()[-1]


def test_a_silo_that_ends_before_the_run_is_named(tmp_path: Path) -> None:
    """A silo's process that ends before the run begins is named, with its last line."""
    process = begin(tmp_path, "rounds=2")
    assert wait_until(lambda: bool(processes_of(tmp_path / "run/silos/silo-1", "serve")), 600.0)
    os.kill(serving(tmp_path), signal.SIGKILL)
    started = time.monotonic()
    out, _ = process.communicate(timeout=200)
    assert process.returncode == 2
    assert "the process of silo-1 has ended, see " in out
    assert time.monotonic() - started < 120
    assert not (tmp_path / "run").exists()
