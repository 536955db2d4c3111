"""New processes that are copies of the first: they share what it has, and give what fresh ones give."""

import hashlib
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from tests.experiment.files import DIGITS, written

pytestmark = pytest.mark.skipif(not sys.platform.startswith("linux"), reason="processes are copied on Linux alone")

ASK = """
import sys
import numpy as np
import torch
from coterie.processes.copies import can_be_copied
{before}
print(can_be_copied())
"""

COUNTED = """
import os
from coterie.data.sources.digits import digits

def load():
    with open("loads", "a") as file:
        print(os.getpid(), file=file)
    return digits()
"""

COMMAND = """
import sys
from coterie.processes import spawn
if sys.argv[1] == "fresh":
    spawn.can_be_copied = lambda: False
from coterie.cli.main import main
main(sys.argv[2:])
"""


def environment(threads: int) -> dict[str, str]:
    return {**os.environ, "OMP_NUM_THREADS": str(threads), "CUDA_VISIBLE_DEVICES": "-1"}


def command(start: str, folder: Path, *overrides: str) -> list[str]:
    options = [*overrides, "--workers", "2", "--out", str(folder / start), "--quiet"]
    return [sys.executable, "-c", COMMAND, start, "run", str(folder / "digits.toml"), *options]


@pytest.mark.parametrize(
    ("before", "answer"),
    [
        ("", True),
        ("x = torch.rand(1000, 1000); (x * 2).sum(); np.ones((500, 500)) @ np.ones((500, 500))", True),
        ("import threading, time; threading.Thread(target=time.sleep, args=(3,), daemon=True).start()", False),
        ("file = open(torch.__file__)", False),
        ("import socket; connection = socket.socket()", False),
        ("import _thread, time; _thread.start_new_thread(time.sleep, (3,))", False),
    ],
    ids=["at the start", "waiting threads", "a thread", "an open file", "a connection", "a thread that Python ignores"],
)
def test_a_process_is_copied_only_where_the_copy_lacks_nothing(before: str, answer: bool) -> None:
    """Threads of OpenMP and OpenBLAS that wait for work are no obstacle: they end, and start again."""
    code = ASK.format(before=before)
    done = subprocess.run(
        [sys.executable, "-W", "error", "-c", code], env=environment(3), capture_output=True, text=True, check=True
    )
    assert done.stdout.splitlines() == [str(answer)], done.stderr


def test_a_copy_loads_nothing_again_and_gives_the_same_bits(tmp_path: Path) -> None:
    """The first process builds the experiment with three threads, and a fresh one with one."""
    written(tmp_path, DIGITS.replace('"digits"', '"counted:load"'))
    (tmp_path / "counted.py").write_text(COUNTED)
    loads, weights = {}, {}
    for start in ("copy", "fresh"):
        (tmp_path / "loads").unlink(missing_ok=True)
        subprocess.run(command(start, tmp_path), cwd=tmp_path, env=environment(3), check=True)
        loads[start] = (tmp_path / "loads").read_text().split()
        weights[start] = hashlib.sha256((tmp_path / start / "model.safetensors").read_bytes()).hexdigest()
    assert len(set(loads["copy"])) == 1
    assert len(set(loads["fresh"])) == 2
    assert weights["copy"] == weights["fresh"]


@pytest.mark.long
@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP])
def test_a_signal_to_all_processes_ends_the_run_after_its_round(tmp_path: Path, number: signal.Signals) -> None:
    """As by Ctrl-C, Slurm, or a terminal that goes away: the copy goes on until the first process has decided."""
    written(tmp_path)
    process = subprocess.Popen(
        command("copy", tmp_path, "rounds=100000"),
        env=environment(1),
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
    )
    try:
        rounds = tmp_path / "copy" / "rounds.jsonl"
        deadline = time.monotonic() + 120
        while not (rounds.exists() and rounds.read_bytes()) and time.monotonic() < deadline:
            time.sleep(0.01)
        os.killpg(process.pid, number)
        said = process.communicate(timeout=120)[1]
    finally:
        process.kill()
    assert process.returncode == 1
    assert "stopping after this round" in said
    assert "--resume" in said
    assert "Traceback" not in said
    assert (tmp_path / "copy" / "checkpoint").exists()
