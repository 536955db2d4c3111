"""A run in several processes, as the command starts it: it ends where one process does, whoever dies on the way."""

import json
import os
import signal
import subprocess
import sys
import time
import tomllib
from pathlib import Path

import pytest
import safetensors.torch

from coterie import Mistake
from coterie.experiment import stop_requests as module
from coterie.experiment.run import run
from coterie.experiment.settings import load_settings
from coterie.experiment.shared_run import set_workers
from coterie.experiment.stop_requests import stop_requests
from coterie.processes.launcher import launcher_size
from coterie.processes.process_group import Group
from coterie.processes.team import ALONE
from tests.experiment.files import written

OVERRIDES = ("algorithm.name=scaffold", "rounds=60", "evaluate.every=20")


def child_of(pid: int) -> int | None:
    """The process that another has started to work with it."""
    for number in Path(f"/proc/{pid}/task/{pid}/children").read_text().split():
        if b"resource_tracker" not in Path(f"/proc/{number}/cmdline").read_bytes():
            return int(number)
    return None


@pytest.mark.skipif(not Path("/proc/self/task").is_dir(), reason="needs /proc to look at other processes")
@pytest.mark.long
def test_two_processes_end_like_one_also_when_one_of_them_is_killed(tmp_path: Path) -> None:
    """The command says who died and how to go on, with status 1. Bit for bit what two processes that nobody killed
    give; to rounding what one gives."""
    path = written(tmp_path)
    arguments = ["run", str(path), *OVERRIDES, "--workers", "2", "--out", str(tmp_path / "killed")]
    process = subprocess.Popen(
        [sys.executable, "-m", "coterie", *arguments], stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True
    )
    rounds = tmp_path / "killed" / "rounds.jsonl"
    while process.poll() is None and not (rounds.exists() and rounds.read_bytes().count(b"\n") >= 5):
        time.sleep(0.005)
    victim = child_of(process.pid)
    assert victim is not None
    os.kill(victim, signal.SIGKILL)
    said = process.communicate(timeout=60)[1]
    assert process.returncode == 1, "the run was over before anybody could be killed"
    assert "process 1 of this run was killed by signal 9" in said
    assert "Traceback" not in said
    assert "--resume" in said
    resumed = run(load_settings(path, OVERRIDES), tmp_path / "killed", resume=True).folder
    assert tomllib.loads((resumed / "config.toml").read_text())["engine"]["workers"] == 2
    whole = run(load_settings(path, (*OVERRIDES, "engine.workers=2")), tmp_path / "whole").folder
    assert (resumed / "model.safetensors").read_bytes() == (whole / "model.safetensors").read_bytes()
    one = run(load_settings(path, (*OVERRIDES, "engine.workers=1")), tmp_path / "one").folder
    ours, theirs = (safetensors.torch.load_file(f / "model.safetensors") for f in (whole, one))
    assert max(float((ours[name] - theirs[name]).abs().max()) for name in theirs) < 1e-4
    ends = [json.loads((f / "summary.json").read_text()) for f in (whole, one)]
    assert ends[0]["bytes_up"] == ends[1]["bytes_up"]


def test_a_mistake_is_one_sentence_whoever_starts_the_processes(tmp_path: Path) -> None:
    with pytest.raises(Mistake, match=r"engine\.workers = 0"):
        load_settings(written(tmp_path), ["engine.workers=0"])
    settings = load_settings(written(tmp_path), ["engine.workers=3"])
    with pytest.raises(Mistake, match=r"engine\.workers = 3: the launcher has started 2 processes"):
        set_workers(settings, 2)
    assert set_workers(load_settings(written(tmp_path)), 2).engine.workers == 2


def test_a_launcher_is_known_by_what_it_sets(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("RANK", raising=False)
    monkeypatch.setenv("WORLD_SIZE", "4")
    assert launcher_size() is None
    monkeypatch.setenv("RANK", "0")
    assert launcher_size() == 4


def test_a_team_is_asked_once_and_stopped_the_second_time(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """What comes within a second is the same request: Slurm tells all processes, and torchrun its own once more."""
    before = signal.getsignal(signal.SIGTERM)
    with stop_requests(Group(0, 2)) as request:
        assert not request.is_made
        signal.raise_signal(signal.SIGTERM)
        signal.raise_signal(signal.SIGTERM)
        assert request.is_made
        monkeypatch.setattr(module, "REPEAT_SECONDS", -1.0)
        with pytest.raises(KeyboardInterrupt, match="from the last checkpoint"):
            signal.raise_signal(signal.SIGINT)
    assert "once more" in capsys.readouterr().err
    assert signal.getsignal(signal.SIGTERM) is before


def test_a_process_alone_stops_at_once() -> None:
    before = signal.signal(signal.SIGINT, signal.default_int_handler)  # a shell's background has it ignored
    try:
        with pytest.raises(KeyboardInterrupt), stop_requests(ALONE) as request:
            signal.raise_signal(signal.SIGINT)
        assert not request.is_made
    finally:
        signal.signal(signal.SIGINT, before)
