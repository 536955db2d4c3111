"""A job of NVFlare's that runs: who is in it, what its relay sends, and who no longer runs it."""

from __future__ import annotations

import queue
import threading
import time
from collections.abc import Iterable
from contextlib import suppress
from dataclasses import dataclass, field
from typing import Any

from coterie.silos.local_socket import Closed, Line
from coterie.silos.nvflare_console import Console
from coterie.silos.nvflare_kit import HEARTBEAT_SECONDS
from coterie.silos.party_process import PartyProcess

ABSENT_SECONDS = 10.0
"""After how long without a sign of life a silo counts as not connected: five signs that did not come."""


@dataclass
class Lease:
    """A job that runs now.

    Args:
        job: NVFlare's name for it.
        line: to its relay.
        sites: the silos in it.

    Attributes:
        gone: silos that no longer run it, and since when, in seconds since 1970.
        failed: silos that NVFlare could not reach in it.
    """

    job: str
    line: Line
    sites: frozenset[str]
    answers: queue.Queue[tuple[dict[str, Any], bytes] | None] = field(default_factory=queue.Queue)
    lost: threading.Event = field(default_factory=threading.Event)
    gone: dict[str, float] = field(default_factory=dict)
    failed: set[str] = field(default_factory=set)

    def read(self, max_bytes: int) -> None:
        """Take what the relay sends until it goes away."""
        with suppress(Closed):
            while (item := self.line.receive(max_bytes))[0].get("kind") != "lost":
                self.answers.put(item)
        self.lost.set()
        self.answers.put(None)

    def suspects(self, waiting: Iterable[str]) -> frozenset[str]:
        """Return the silos because of which this job may have ended, given those that had not answered.

        They are those that were gone or out of reach; else those that had not answered, if others had.
        """
        open_sites = self.sites & set(waiting)
        found = open_sites & (self.gone.keys() | self.failed)
        return found or (open_sites if len(open_sites) < len(self.sites) else frozenset())

    def watch(self, console: Console, process: PartyProcess) -> None:
        """Look until the end of the job which silos run it: NVFlare does not always end it when one stops.

        A job whose parent process has ended is lost, though it may go on for a while.

        A silo that says that it does not run it is gone at once. One that says nothing is gone after a while, and back
        when it says otherwise.
        """
        silent: dict[str, float] = {}
        while not self.lost.wait(HEARTBEAT_SECONDS):
            if not process.running():
                self.line.close()
                break
            signs, now = console.signs_of_life(), time.time()
            age = {name: now - signs.get(name, 0.0) if signs else 0.0 for name in self.sites}
            # NVFlare waits ten seconds for a silo that is away, so only the others are asked
            parts = console.parts(self.job, [name for name in age if age[name] <= 3 * HEARTBEAT_SECONDS])
            silent = {name: silent.get(name, now) for name, state in parts.items() if state is None}
            for name in self.sites:
                away = age[name] > ABSENT_SECONDS or time.time() - silent.get(name, time.time()) > ABSENT_SECONDS
                if parts.get(name) == "" or away:
                    if name not in self.gone:
                        self.gone[name] = time.time()
                        self.answers.put(({"kind": "gone", "site": name}, b""))
                elif parts.get(name):
                    self.gone.pop(name, None)
        console.close()
