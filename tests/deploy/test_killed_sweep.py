"""A sweep whose process is killed leaves no process behind, and goes on to the same weights."""

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from coterie.experiment.run import run
from coterie.experiment.settings import load_settings
from coterie.track.folder_lock import is_locked
from tests.experiment.files import DIGITS, written

SWEEP = [sys.executable, "-m", "coterie", "sweep", "digits.toml", "lr=0.05,0.1", "--jobs", "2", "--out", "s"]
WAIT_SECONDS = 300.0


def wait_until(happens: Callable[[], bool]) -> None:
    """Wait until something is the case; fail if that takes too long."""
    until = time.monotonic() + WAIT_SECONDS
    while not happens():
        assert time.monotonic() < until
        time.sleep(0.05)


def rounds(folder: Path) -> int:
    path = folder / "rounds.jsonl"
    return len(path.read_text().splitlines()) if path.is_file() else 0


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGTERM])
def test_it_goes_on_bit_for_bit(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, number: signal.Signals) -> None:
    """Both runs are killed between rounds 3 and 400; nobody holds their folders soon after."""
    monkeypatch.chdir(tmp_path)
    written(tmp_path, DIGITS.replace("rounds = 3", "rounds = 400"))
    folders = [Path(f"s/runs/lr={lr}") for lr in (0.05, 0.1)]
    environment = os.environ | {"PYTHONPATH": str(Path(__file__).parents[2])}
    sweep = subprocess.Popen(SWEEP, env=environment, stderr=subprocess.PIPE, text=True)
    wait_until(lambda: all(rounds(folder) >= 3 for folder in folders))
    sweep.send_signal(number)
    _, err = sweep.communicate(timeout=WAIT_SECONDS)
    wait_until(lambda: not any(is_locked(folder) for folder in folders))
    assert all(rounds(folder) < 400 for folder in folders)
    if number == signal.SIGTERM:
        assert sweep.returncode == 1
        assert "stopped; every complete round is kept; continue with\n  coterie sweep digits.toml" in err
    assert subprocess.run([*SWEEP, "--resume"], env=environment, check=False).returncode == 0
    for lr, folder in zip((0.05, 0.1), folders, strict=True):
        run(load_settings(Path("digits.toml"), [f"algorithm.lr={lr}"]), Path(f"alone-{lr}"))
        alone = Path(f"alone-{lr}/model.safetensors").read_bytes()
        assert (folder / "model.safetensors").read_bytes() == alone
