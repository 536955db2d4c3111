"""Processes that start, meet, and do not outlive one another."""

import os
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path

import pytest

from coterie.processes.process_group import join_team
from coterie.processes.team import ALONE

JOIN = """
import torch
from coterie.processes.process_group import join_team
with join_team() as team:
    print(team.rank, team.size, team.gather(team.rank * 10), team.sum(torch.tensor([1.0, team.rank])).tolist())
    print(torch.get_num_threads())
    print([len(each) for each in team.gather(b"x" * (1 + team.rank * 10**6))])  # short and long
"""

TOGETHER = """
import os, sys, time
from coterie.processes.spawn import run_in_processes

def sleeps(team):
    pids = team.gather(os.getpid())
    if team.rank == 0:
        print(*pids, flush=True)
        time.sleep(60)
    team.gather(None)

if __name__ == "__main__":
    run_in_processes(2, sleeps)
"""


def free_port() -> str:
    with socket.socket() as s:
        s.bind(("127.0.0.1", 0))
        return str(s.getsockname()[1])


def test_processes_that_a_launcher_started_join() -> None:
    """The variables are those that torchrun sets. 1 + 1 = 2 and 0 + 1 = 1."""
    where = {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": free_port(), "WORLD_SIZE": "2"}
    processes = [
        subprocess.Popen(
            [sys.executable, "-c", JOIN], env={**os.environ, **where, "RANK": str(r)}, stdout=subprocess.PIPE
        )
        for r in (0, 1)
    ]
    outputs = [process.communicate(timeout=60)[0].decode().splitlines() for process in processes]
    assert outputs == [[f"{rank} 2 [0, 10] [2.0, 1.0]", "1", "[1, 1000001]"] for rank in (0, 1)]


def test_a_process_alone_is_a_team_of_one(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("WORLD_SIZE", raising=False)
    with join_team() as team:
        assert team is ALONE


def alive(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except FileNotFoundError:
        return False


@pytest.mark.skipif(not Path("/proc/self/stat").is_file(), reason="needs /proc to look at other processes")
def test_no_process_outlives_the_first(tmp_path: Path) -> None:
    """Not even where that is killed and can do nothing about it."""
    script = tmp_path / "script.py"
    script.write_text(TOGETHER)
    first = subprocess.Popen([sys.executable, str(script)], stdout=subprocess.PIPE)
    assert first.stdout is not None
    pids = [int(pid) for pid in first.stdout.readline().split()]
    assert pids[0] == first.pid
    assert alive(pids[1])
    first.send_signal(signal.SIGKILL)
    first.wait()
    deadline = time.monotonic() + 10
    while alive(pids[1]) and time.monotonic() < deadline:
        time.sleep(0.05)
    assert not alive(pids[1])
