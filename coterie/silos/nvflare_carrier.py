"""The carrier between silos that have a coordinator: NVFlare, with TLS at both ends.

The run's own process stays outside NVFlare. It starts NVFlare's process of the coordinator, and submits jobs that only
hand bytes on (`coterie.silos.nvflare_relay`). A job is a lease: NVFlare ends it whenever one of its processes dies, so
the run asks again, in the next job, those that have not answered. Requests may therefore arrive twice.
"""

from __future__ import annotations

import queue
import secrets
import socket
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from types import TracebackType
from typing import Any

from coterie.core.errors import Mistake, reason, require
from coterie.silos.carrier import Failure
from coterie.silos.local_socket import Closed, Line, Meeting
from coterie.silos.nvflare_console import Console
from coterie.silos.nvflare_kit import (
    HEARTBEAT_SECONDS,
    LARGEST_BYTES,
    LOOK_SECONDS,
    RESTART_SECONDS,
    remove_old_jobs,
    write_coordinator_kit,
)
from coterie.silos.party_process import PartyProcess
from coterie.silos.project import list_silos, read_project

ABSENT_SECONDS = 10.0
"""After how long without a sign of life a silo counts as not connected."""

READY_SECONDS = 60.0
"""How long a job may take to start before another is submitted."""


_STOPPED = "stopped answering"
_SERVER = "nvflare.private.fed.app.server.server_train"


@dataclass
class _Lease:
    """A job that runs now.

    Args:
        job: NVFlare's name for it.
        line: to its relay.
        sites: the silos in it.

    Attributes:
        gone: silos that no longer run it, and since when, in seconds since 1970.
    """

    job: str
    line: Line
    sites: frozenset[str]
    answers: queue.Queue[tuple[dict[str, Any], bytes] | None] = field(default_factory=queue.Queue)
    lost: threading.Event = field(default_factory=threading.Event)
    gone: dict[str, float] = field(default_factory=dict)

    def read(self, max_bytes: int) -> None:
        """Take what the relay sends until it goes away."""
        with suppress(Closed):
            while (item := self.line.receive(max_bytes))[0].get("kind") != "lost":
                self.answers.put(item)
        self.lost.set()
        self.answers.put(None)

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
            without = console.sites_without(self.job)
            silent = {name: silent.get(name, time.time()) for name, says in without.items() if not says}
            for name in self.sites:
                if without.get(name, False) or time.time() - silent.get(name, time.time()) > ABSENT_SECONDS:
                    if name not in self.gone:
                        self.gone[name] = time.time()
                        self.answers.put(({"kind": "gone", "site": name}, b""))
                elif name not in silent:
                    self.gone.pop(name, None)
        console.close()


class NVFlareCoordinator:
    """A coordinator of a project; see `coterie.silos.carrier.Coordinator`. Use it in a `with` statement.

    Args:
        folder: of the project (`coterie.silos.project.create_project`).
        quorum: how many silos must be connected before a job is submitted.
        max_bytes: the largest message, either way.
        say: what is called with a sentence for people when something happens.

    Raises:
        Mistake: NVFlare is not installed, the folder has no project, or its port is taken.
        OSError: a folder cannot be written, or a process not started.
    """

    def __init__(
        self,
        folder: Path,
        *,
        quorum: int = 1,
        max_bytes: int = LARGEST_BYTES,
        say: Callable[[str], None] = lambda _: None,
    ) -> None:
        require("quorum", quorum, quorum >= 1, "1 or more")
        self.folder, self.quorum, self.max_bytes, self.say = folder.resolve(), quorum, max_bytes, say
        self.project, self.silos = read_project(self.folder), list_silos(self.folder)
        self._console = Console(self.folder / "console")
        self._check_port()
        write_coordinator_kit(self.folder / "coordinator", self.project.name, self.project.host, self.project.port)
        self._meeting, self._arrived = Meeting(), queue.Queue[tuple[str, tuple[str, ...], Line]]()
        self._lease: _Lease | None = None
        self._number, self._lost_at = 0, 0.0
        self._process = self._start()
        threading.Thread(target=self._accept, daemon=True).start()

    def __enter__(self) -> NVFlareCoordinator:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def sites(self) -> tuple[str, ...]:
        """Return the silos that are connected now, sorted."""
        return tuple(sorted(self._find_connected(time.time() - ABSENT_SECONDS)))

    def ask(self, messages: Mapping[str, bytes], deadline: float) -> Iterator[tuple[str, bytes | Failure]]:
        """Send each silo its message; yield (silo, answer or failure) as they come, all within `deadline` seconds.

        Where a job ends meanwhile, those that have not answered are asked again in the next one.

        Raises:
            Mistake: a message is larger than `max_bytes`; none was sent.
        """
        for site, message in messages.items():
            if len(message) > self.max_bytes:
                raise Mistake(
                    f"the message for {site} has {len(message)} bytes, above the largest message of {self.max_bytes}; "
                    "compress it, or allow larger ones at the coordinator and at every silo"
                )
        return self._ask(dict(messages), time.monotonic() + deadline, deadline)

    def renew(self) -> None:
        """Let silos in that came since the last round; called between rounds."""
        lease = self._lease
        if lease is not None and not lease.lost.is_set() and not set(self.sites()) <= lease.sites - lease.gone.keys():
            self._end_lease()

    def close(self) -> None:
        """End the job and NVFlare's process; harmless when called twice."""
        self._end_lease()
        self._console.close()
        self._process.stop()
        self._meeting.close()

    def _ask(self, waiting: dict[str, bytes], ends: float, deadline: float) -> Iterator[tuple[str, bytes | Failure]]:
        """Ask, over as many jobs as it takes, until everyone has answered or the deadline is over."""
        why = dict.fromkeys(waiting, f"gave no answer within {deadline:g} seconds")
        while waiting and time.monotonic() < ends:
            lease = self._wait_for_lease(ends)
            if lease is None:
                break
            absent = [site for site in waiting if site not in lease.sites or site in lease.gone]
            if time.time() < max((lease.gone.get(site, 0.0) for site in absent), default=0.0) + 2 * HEARTBEAT_SECONDS:
                time.sleep(LOOK_SECONDS)  # until it can have shown that it is there again
                continue
            if not self._find_connected(time.time() - ABSENT_SECONDS).isdisjoint(absent):
                self._end_lease()  # the next job has it
                continue
            for site in absent:
                del waiting[site]
                yield site, Failure(_STOPPED if why[site] == _STOPPED else "is not connected")
            if waiting:
                yield from self._exchange(lease, waiting, why, ends)
        for site in waiting:
            yield site, Failure(why[site])

    def _exchange(
        self, lease: _Lease, waiting: dict[str, bytes], why: dict[str, str], ends: float
    ) -> Iterator[tuple[str, bytes | Failure]]:
        """Send what is waiting, and yield answers until all are here, the job ends, or the time is over.

        A failure that NVFlare reports stays waiting: the job usually ends a moment later, and the next one tries again.
        """
        self._number += 1
        number, failed = self._number, set[str]()
        try:
            for message, sites in _group_by_message(waiting).items():
                about = {"kind": "ask", "number": number, "sites": sites, "seconds": max(ends - time.monotonic(), 0.1)}
                lease.line.send(about, message)
        except Closed:
            self._lose(lease)
            return
        while waiting.keys() - failed and time.monotonic() < ends:
            try:
                item = lease.answers.get(timeout=max(ends - time.monotonic(), 0.01))
            except queue.Empty:
                return
            if item is None:
                self._lose(lease)
                return
            header, body = item
            site = str(header.get("site"))
            if site not in waiting or header.get("number", number) != number:
                continue  # late, or twice
            if header["kind"] == "answer":
                del waiting[site]
                yield site, body
            elif header.get("silo"):  # the silo's own word
                del waiting[site]
                yield site, Failure(str(header["reason"]))
            else:
                failed.add(site)
                why[site] = str(header.get("reason", _STOPPED))
        if waiting and lease.lost.wait(min(1.0, max(ends - time.monotonic(), 0.0))):
            self._lose(lease)

    def _wait_for_lease(self, ends: float) -> _Lease | None:
        """Return the job that runs; submit one where there is none, once a quorum is connected; None after `ends`."""
        if self._lease is not None and self._lease.lost.is_set():
            self._lose(self._lease)
        while self._lease is None and time.monotonic() < ends:
            connected = self._find_connected(max(self._lost_at, time.time() - ABSENT_SECONDS))
            expected = self._find_connected(time.time() - ABSENT_SECONDS)
            if len(connected) < self.quorum or (
                connected != expected and time.time() < self._lost_at + 3 * HEARTBEAT_SECONDS
            ):
                time.sleep(LOOK_SECONDS)
                continue
            self._lease = self._submit(sorted(connected), ends)
        return self._lease

    def _submit(self, sites: Sequence[str], ends: float) -> _Lease | None:
        """Submit a job to some silos and wait until its relay is here; None if it does not start."""
        name = secrets.token_hex(8)
        job = self._console.submit(name, sites, min(self.quorum, len(sites)))
        until = min(ends, time.monotonic() + READY_SECONDS)
        while job is not None and time.monotonic() < until:
            try:
                arrived, present, line = self._arrived.get(timeout=1.0)
            except queue.Empty:
                if why := self._console.find_end(job):
                    self.say(f"a job ended before it began ({why}); the next is submitted")
                    return None
                continue
            if arrived != name:
                line.close()  # an earlier job
                continue
            lease = _Lease(job, line, frozenset(present))
            line.send({"kind": "begin", "max_bytes": self.max_bytes})
            threading.Thread(target=lease.read, args=(self.max_bytes,), daemon=True).start()
            watching = (Console(self.folder / "console"), self._process)
            threading.Thread(target=lease.watch, args=watching, daemon=True).start()
            self.say(f"connected with {', '.join(sorted(present))}")
            return lease
        if job is not None:
            self._console.abort(job)
        return None

    def _find_connected(self, since: float) -> set[str]:
        """Return the invited silos that gave a sign of life since a time; start NVFlare's process where it ended."""
        if not self._process.running():
            self._console.close()
            self.say(f"NVFlare's process at the coordinator ended, see {self._process.log}; it is started again")
            self._process.stop()  # what is left of it
            time.sleep(RESTART_SECONDS)
            self._process = self._start()
        gone = self._lease.gone if self._lease is not None else {}
        signs = self._console.signs_of_life()
        return {name for name, at in signs.items() if name in self.silos and at >= max(since, gone.get(name, 0.0))}

    def _lose(self, lease: _Lease) -> None:
        """Write down that a job has ended."""
        if self._lease is lease:
            self._lease, self._lost_at = None, time.time()
            lease.line.close()
            self.say("a job ended early; the next one begins when enough silos are connected")

    def _end_lease(self) -> None:
        """End the job that runs, and wait a little until it is over."""
        lease, self._lease = self._lease, None
        if lease is not None:
            with suppress(Closed):
                lease.line.send({"kind": "end"})
            lease.lost.wait(5.0)
            lease.line.close()

    def _start(self) -> PartyProcess:
        """Start NVFlare's process of the coordinator."""
        kit = self.folder / "coordinator"
        remove_old_jobs(kit)
        arguments = ["-m", str(kit), "-s", "fed_server.json", "--set", "secure_train=true", "org=coterie"]
        return PartyProcess(_SERVER, [*arguments, "config_folder=config"], kit / "process.txt", self._meeting.folder)

    def _check_port(self) -> None:
        """Refuse a port that another program has, since NVFlare would only say so in its log."""
        with socket.socket() as trial:
            trial.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            try:
                trial.bind(("", self.project.port))
            except OSError as error:
                raise Mistake(
                    f"port {self.project.port} cannot be listened on ({reason(error)}); end the program that has it, "
                    "such as another run of this project"
                ) from error

    def _accept(self) -> None:
        """Take the relays that connect."""
        with suppress(Closed):
            while True:
                line = self._meeting.accept()
                with suppress(Closed):
                    header, _ = line.receive(0)
                    self._arrived.put((str(header["lease"]), tuple(map(str, header["sites"])), line))


def free_port() -> int:
    """Return a port of this machine that is free now, for a rehearsal.

    It lies below those that systems give to outgoing connections: a silo that dials while the coordinator is away could
    otherwise get the coordinator's own port.
    """
    while True:
        port = 20000 + secrets.randbelow(10000)
        with socket.socket() as trial, suppress(OSError):
            trial.bind(("127.0.0.1", port))
            return port


def _group_by_message(messages: Mapping[str, bytes]) -> dict[bytes, list[str]]:
    """Return which silos get each message, so that a broadcast crosses to the relay once."""
    groups: dict[bytes, list[str]] = {}
    for site, message in messages.items():
        groups.setdefault(message, []).append(site)
    return groups
