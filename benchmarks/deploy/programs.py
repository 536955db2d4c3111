"""The processes of a case: started with a log each, ended with the case, and the memory of the coordinator's."""

from __future__ import annotations

import os
import signal
import subprocess
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from pathlib import Path

THIS = Path(__file__).parent
ROOT = THIS.parents[1]


class Programs:
    """Programs that run until the block ends.

    Args:
        folder: where their logs go.
        environment: what they get beside this process's own.
    """

    def __init__(self, folder: Path, environment: Mapping[str, str]) -> None:
        self.folder = folder
        self.environment = os.environ | {"OMP_NUM_THREADS": "1", "MALLOC_ARENA_MAX": "4"} | environment
        self.running: list[subprocess.Popen[bytes]] = []

    def __enter__(self) -> Programs:
        return self

    def __exit__(self, *error: object) -> None:
        for number in (signal.SIGTERM, signal.SIGKILL):
            for program in reversed(self.running):
                with suppress(ProcessLookupError):
                    os.killpg(program.pid, number)
            ends = time.monotonic() + 5.0
            while any(program.poll() is None for program in self.running) and time.monotonic() < ends:
                time.sleep(0.1)

    def start(self, name: str, command: Sequence[str]) -> subprocess.Popen[bytes]:
        """Start a program whose output goes to NAME.txt."""
        with (self.folder / f"{name}.txt").open("wb") as log:
            program = subprocess.Popen(
                command, env=self.environment, stdout=log, stderr=log, cwd=self.folder, start_new_session=True
            )
        self.running.append(program)
        return program

    def log(self, name: str) -> str:
        """Return what a program has printed."""
        return (self.folder / f"{name}.txt").read_text(errors="replace")


class Peaks:
    """Follows a process and all that it starts, and keeps the most memory that each of them had.

    Attributes:
        mib: process -> the most resident memory, as the kernel keeps it.
    """

    def __init__(self, process: int) -> None:
        self.process, self.mib = process, dict[int, float]()
        threading.Thread(target=self._follow, daemon=True).start()

    def sum(self) -> float:
        """Return the sum of the peaks. Pages that processes share count for each."""
        return sum(self.mib.values())

    def _follow(self) -> None:
        while Path(f"/proc/{self.process}").exists():
            for process in _descendants(self.process):
                with suppress(OSError, IndexError):
                    line = Path(f"/proc/{process}/status").read_text().split("VmHWM:")[1]
                    self.mib[process] = max(self.mib.get(process, 0.0), int(line.split()[0]) / 1024)
            time.sleep(0.5)


def _descendants(process: int) -> set[int]:
    parents: dict[int, list[int]] = {}
    for path in Path("/proc").glob("[0-9]*/stat"):
        with suppress(OSError):
            parents.setdefault(int(path.read_text().rpartition(")")[2].split()[1]), []).append(int(path.parent.name))
    found, new = {process}, [process]
    while new:
        new = [child for parent in new for child in parents.get(parent, []) if child not in found]
        found |= set(new)
    return found


def wait_until(happens: Callable[[], bool], seconds: float, what: str) -> None:
    """Wait until something is the case.

    Raises:
        RuntimeError: it takes too long.
    """
    ends = time.monotonic() + seconds
    while not happens():
        if time.monotonic() > ends:
            raise RuntimeError(f"{what} took more than {seconds:g} seconds")
        time.sleep(0.1)
