"""NVFlare's process of a coordinator or a silo: started, watched, stopped, and never left behind.

    python -m coterie.silos.party_process MODULE ARGUMENTS...

runs a module, and ends with the process that started it: it holds the other end of its standard input, so that even a
kill of the starter is noticed at once.
"""

from __future__ import annotations

import os
import runpy
import signal
import subprocess
import sys
import threading
from collections.abc import Sequence
from pathlib import Path

from coterie.silos.local_socket import FOLDER_VARIABLE

STOP_SECONDS = 5.0
LIGHT_ENVIRONMENT = {"OMP_NUM_THREADS": "1", "MALLOC_ARENA_MAX": "4"}
"""A process that only carries bytes needs one thread of arithmetic and few memory arenas."""


class PartyProcess:
    """A process of NVFlare's, which logs into a file and ends with this one.

    Args:
        module, arguments: what to run.
        log: file that its standard output is appended to.
        meeting: folder in which the processes of its jobs find this process.

    Raises:
        OSError: it cannot be started.
    """

    def __init__(self, module: str, arguments: Sequence[str], log: Path, meeting: Path) -> None:
        environment = os.environ | LIGHT_ENVIRONMENT | {FOLDER_VARIABLE: str(meeting), "PYTHONUNBUFFERED": "1"}
        environment["PYTHONPATH"] = os.pathsep.join(
            each for each in sys.path if each
        )  # jobs import what is imported here
        log.parent.mkdir(parents=True, exist_ok=True)
        with log.open("ab") as output:
            self._process = subprocess.Popen(
                [sys.executable, "-m", __name__, module, *arguments],
                stdin=subprocess.PIPE,
                stdout=output,
                stderr=subprocess.STDOUT,
                env=environment,
                start_new_session=True,  # Ctrl-C reaches the starter alone, which stops this in order
            )
        self.log = log

    @property
    def pid(self) -> int:
        """Its process id."""
        return self._process.pid

    def running(self) -> bool:
        """Return whether it runs."""
        return self._process.poll() is None

    def stop(self) -> None:
        """End it and every process of its group; harmless if it has ended."""
        if self._process.stdin is not None:
            self._process.stdin.close()
        try:
            self._process.wait(STOP_SECONDS)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()


def main() -> None:
    """Run a module until it ends, or until the process that started this one does."""
    module, sys.argv = sys.argv[1], sys.argv[1:]
    threading.Thread(target=_end_with_starter, daemon=True).start()
    runpy.run_module(module, run_name="__main__", alter_sys=True)


def _end_with_starter() -> None:
    """Wait until standard input is closed, and kill this process and its group.

    NVFlare's own way to stop takes up to a minute, and nothing that it writes is needed again. The processes of its
    jobs have groups of their own, and end when their line to the starter does (`coterie.silos.nvflare_relay`).
    """
    while os.read(0, 1024):
        pass
    os.killpg(0, signal.SIGKILL)


if __name__ == "__main__":
    main()
