"""How threads wait, and when a user is told that other programs take their cores."""

import os
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch

from coterie.core import threads
from coterie.core.threads import SharedMachineWatch, compute_with, let_waiting_threads_sleep

COMMAND = """
import contextlib, os, sys
sys.argv = ["coterie", "data", "list"]
from coterie.cli import main as command
assert "torch" not in sys.modules, "the environment would be set too late"
command.app = lambda **options: None
with contextlib.suppress(SystemExit):
    command.main()
print(os.environ.get("GOMP_SPINCOUNT"), os.environ.get("OMP_WAIT_POLICY"))
"""


@pytest.mark.parametrize(
    ("given", "found"),
    [({}, "5000 None"), ({"GOMP_SPINCOUNT": "7"}, "7 None"), ({"OMP_WAIT_POLICY": "active"}, "None active")],
)
def test_the_command_lets_waiting_threads_sleep_before_torch_is_loaded(given: dict[str, str], found: str) -> None:
    clean = {name: value for name, value in os.environ.items() if name not in threads._HOW_THREADS_WAIT}
    ended = subprocess.run(
        [sys.executable, "-c", COMMAND], env=clean | given, capture_output=True, text=True, check=False
    )
    assert ended.stdout.strip() == found, ended.stderr


def test_once_torch_is_loaded_nothing_is_set() -> None:
    environment: dict[str, str] = {}
    let_waiting_threads_sleep(environment)
    assert environment == {}


def test_threads_are_as_before_after_a_run() -> None:
    before = torch.get_num_threads()
    with compute_with(3):
        assert torch.get_num_threads() == 3
    assert torch.get_num_threads() == before


class Machine:
    """A machine of two cores, whose clock and programs the test moves on."""

    def __init__(self, path: Path, monkeypatch: pytest.MonkeyPatch, count: int) -> None:
        self.stat, self.now, self.own, self.all = path / "stat", 0.0, 0.0, 0.0
        monkeypatch.setattr(time, "perf_counter", lambda: self.now)
        monkeypatch.setattr(time, "process_time", lambda: self.own)
        monkeypatch.setattr(threads, "_cores", lambda: {0, 1})
        monkeypatch.setattr(threads, "threads_by_default", lambda: count)
        for name in threads._HOW_THREADS_WAIT:
            monkeypatch.delenv(name, raising=False)
        self.pass_by(0, own=0, others=0)

    def pass_by(self, seconds: float, own: float, others: float) -> None:
        """Some seconds, in which this process and others use so many cores."""
        self.now, self.own, self.all = self.now + seconds, self.own + seconds * own, self.all + seconds * (own + others)
        ticks = round(self.all * os.sysconf("SC_CLK_TCK") / 2)
        self.stat.write_text(
            "".join(f"{name} {ticks} 0 0 99 5 0 0 0 0 0\n" for name in ("cpu", "cpu0", "cpu1", "cpu2"))
        )


def test_who_shares_the_machine_is_told_once_what_to_set(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    machine = Machine(tmp_path, monkeypatch, count=2)
    watch = SharedMachineWatch(machine.stat)
    machine.pass_by(1, own=1, others=1)
    assert watch.complaint() is None  # too early
    machine.pass_by(2, own=1, others=1)
    sentence = watch.complaint()
    assert sentence is not None
    assert sentence.startswith(
        "other programs take 1.0 of the 2 cores that this process may use, and PyTorch's 2 threads"
    )
    assert "OMP_NUM_THREADS=1" in sentence
    machine.pass_by(10, own=1, others=1)
    assert watch.complaint() is None


@pytest.mark.parametrize(("count", "own", "others"), [(2, 2, 0), (2, 1.6, 0.4), (1, 1, 1), (1, 1, 0)])
def test_a_machine_of_one_s_own_is_no_complaint(
    count: int, own: float, others: float, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Whatever the load that the own threads make."""
    machine = Machine(tmp_path, monkeypatch, count)
    watch = SharedMachineWatch(machine.stat)
    for _ in range(5):
        machine.pass_by(3, own, others)
        assert watch.complaint() is None


def test_where_waiting_threads_sleep_nothing_is_watched(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    machine = Machine(tmp_path, monkeypatch, count=2)
    monkeypatch.setenv("GOMP_SPINCOUNT", "1000")
    watch = SharedMachineWatch(machine.stat)
    machine.pass_by(3, own=1, others=1)
    assert watch.complaint() is None


def test_a_system_that_does_not_count_is_not_watched(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    machine = Machine(tmp_path, monkeypatch, count=2)
    watch = SharedMachineWatch(tmp_path / "absent")
    machine.pass_by(3, own=1, others=1)
    assert watch.complaint() is None
