"""A coordinator and silos of one machine, with real keys, processes and TLS, for tests of the NVFlare carrier."""

import os
import threading
import time
from contextlib import ExitStack
from pathlib import Path
from unittest.mock import patch

from coterie.silos import certificates
from coterie.silos.nvflare_carrier import NVFlareCoordinator, free_port
from coterie.silos.nvflare_silo import NVFlareSilo
from coterie.silos.project import create_project, join_all

NAMES = ("north", "south", "west")


class Rehearsal:
    """Keys and kits in `folder`, and whatever is started on them until the block ends.

    Each silo answers with the message backwards and its own name.
    """

    def __init__(self, folder: Path, names=NAMES):
        self.folder, self.names = folder, names
        self.said: list[str] = []
        self.silos: dict[str, NVFlareSilo] = {}
        with patch.object(certificates, "KEY_BITS", 2048):  # made in a fifth of the time
            create_project(folder / "hub", "trial", "localhost", free_port(), names)
            self.kits = join_all(folder / "hub", folder / "kits", names)
        self._stack = ExitStack()

    def __enter__(self):
        return self

    def __exit__(self, *error):
        self._stack.close()

    def coordinator(self, **options) -> NVFlareCoordinator:
        started = NVFlareCoordinator(self.folder / "hub", say=self.said.append, **options)
        return self._stack.enter_context(started)

    def silo(self, name: str, answer=None, **options) -> NVFlareSilo:
        silo = self._stack.enter_context(NVFlareSilo(self.kits[name], say=self.said.append, **options))
        self.silos[name] = silo
        answer = answer or (lambda message: message[::-1] + name.encode())
        threading.Thread(target=silo.serve, args=(answer,), daemon=True).start()
        return silo


def wait_until(condition, seconds: float) -> bool:
    ends = time.monotonic() + seconds
    while not (right := condition()) and time.monotonic() < ends:
        time.sleep(0.2)
    return right


def processes_of(folder: Path, module: str = "") -> set[int]:
    """Return the processes that have a folder and a module in their command, without this one."""
    found = set()
    for each in Path("/proc").glob("[0-9]*"):
        try:
            command = (each / "cmdline").read_bytes()
        except OSError:
            continue
        if str(folder).encode() in command and module.encode() in command and int(each.name) != os.getpid():
            found.add(int(each.name))
    return found
