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
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from types import TracebackType

from coterie.core.errors import Mistake, reason, require
from coterie.silos.carrier import Failure
from coterie.silos.local_socket import Closed, Line, Meeting
from coterie.silos.nvflare_bars import Bars
from coterie.silos.nvflare_console import Console
from coterie.silos.nvflare_kit import (
    HEARTBEAT_SECONDS,
    LARGEST_BYTES,
    LOOK_SECONDS,
    RESTART_SECONDS,
    remove_old_jobs,
    write_coordinator_kit,
    write_disabled,
)
from coterie.silos.nvflare_lease import ABSENT_SECONDS, Lease
from coterie.silos.nvflare_start import NOT_STARTED, JobStart
from coterie.silos.party_process import PartyProcess
from coterie.silos.project import list_silos, read_project
from coterie.silos.revoke import list_revoked

END_SECONDS = 2.0
"""How long a job has to tell its silos that it ends, before its process here is ended and the next is submitted."""

READY_SECONDS = 60.0
"""How long a job may take to start before another is submitted."""

_STOPPED, _REVOKED = "stopped answering", "was revoked"
_SERVER = "nvflare.private.fed.app.server.server_train"


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
        self._revoked = list_revoked(self.folder)
        write_disabled(self.folder / "coordinator", self._revoked)
        self._meeting, self._arrived = Meeting(), queue.Queue[tuple[str, tuple[str, ...], Line]]()
        self._lease: Lease | None = None
        self._bars = Bars(say)
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
        for site in messages:  # one in memory at a time, as in `coterie.silos.message.Requests`
            size = len(messages[site])
            if size > self.max_bytes:
                raise Mistake(
                    f"the message for {site} has {size} bytes, above the largest message of {self.max_bytes}; "
                    "compress it, or allow larger ones at the coordinator and at every silo"
                )
        return self._ask(messages, time.monotonic() + deadline, deadline)

    def renew(self) -> None:
        """Let silos in that came since the last round; called between rounds."""
        lease = self._lease
        if lease is not None and not lease.lost.is_set() and not self._find_usable() <= lease.sites - lease.gone.keys():
            self._end_lease()

    def close(self) -> None:
        """End the job and NVFlare's process; harmless when called twice."""
        self._end_lease()
        self._console.close()
        self._process.stop()
        self._meeting.close()

    def _ask(
        self, messages: Mapping[str, bytes], ends: float, deadline: float
    ) -> Iterator[tuple[str, bytes | Failure]]:
        """Ask, over as many jobs as it takes, until everyone has answered or the deadline is over."""
        waiting = dict.fromkeys(messages)
        why = dict.fromkeys(messages, f"gave no answer within {deadline:g} seconds")
        spoilt = Counter[str]()
        while waiting and time.monotonic() < ends:
            out = self._find_left_out()
            for site in [site for site in waiting if site in out]:
                del waiting[site]
                yield site, Failure(out[site])
            lease = self._wait_for_lease(ends) if waiting else None
            if lease is None:
                break
            absent = [site for site in waiting if site not in lease.sites or site in lease.gone]
            if time.time() < max((lease.gone.get(site, 0.0) for site in absent), default=0.0) + 2 * HEARTBEAT_SECONDS:
                time.sleep(LOOK_SECONDS)  # until it can have shown that it is there again
                continue
            if back := self._find_usable() & set(absent):
                self._count_spoilt(back & lease.gone.keys(), spoilt)
                self._end_lease()  # the next job has it
                continue
            for site in absent:
                del waiting[site]
                other = _STOPPED if why[site] == _STOPPED else "is not connected"
                yield site, Failure(self._bars.reasons().get(site, other))
            if waiting:
                yield from self._exchange(lease, messages, waiting, why, ends)
            if lease.lost.is_set():
                self._count_spoilt(lease.suspects(waiting), spoilt)
        for site in waiting:
            yield site, Failure(why[site])

    def _count_spoilt(self, suspects: Iterable[str], spoilt: Counter[str]) -> None:
        """Count for each silo the jobs that may have ended because of it; two in one exchange are one too many."""
        for site in suspects:
            spoilt[site] += 1
            if spoilt[site] > 1:
                self._bars.put(site, "its part of one job after another stopped")

    def _find_revoked(self) -> frozenset[str]:
        """Return the silos that were revoked, and let NVFlare's process refuse a new one from now on."""
        now = list_revoked(self.folder)
        new, self._revoked = now - self._revoked, now
        for site in sorted(new):
            self.say(f"{site} was revoked, and is asked no more")
            write_disabled(self.folder / "coordinator", now)
            self._console.disable(site)
        return now

    def _find_left_out(self) -> dict[str, str]:
        """Return each silo that is left out of jobs now, and why, if it has no part in the job that runs."""
        revoked = self._find_revoked()
        if revoked:
            return self._find_barred() | dict.fromkeys(revoked, _REVOKED)
        return self._find_barred()

    def _find_barred(self) -> dict[str, str]:
        """Return the silos that are left out since they spoilt jobs; see `_find_left_out`."""
        barred = self._bars.reasons()
        inside = self._lease.sites if self._lease is not None else frozenset[str]()
        usable = self._find_usable() if barred else set()
        return {site: why for site, why in barred.items() if site not in usable and site not in inside}

    def _exchange(
        self,
        lease: Lease,
        messages: Mapping[str, bytes],
        waiting: dict[str, None],
        why: dict[str, str],
        ends: float,
    ) -> Iterator[tuple[str, bytes | Failure]]:
        """Send what is waiting, and yield answers until all are here, the job ends, or the time is over.

        A failure that NVFlare reports stays waiting: the job usually ends a moment later, and the next one tries again.
        """
        self._number += 1
        number, failed = self._number, set[str]()
        try:
            for site in waiting:
                about = {"kind": "ask", "number": number, "site": site, "seconds": max(ends - time.monotonic(), 0.1)}
                lease.line.send(about, messages[site])
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
            if site in self._find_revoked():
                del waiting[site]
                yield site, Failure(_REVOKED)
                continue
            if header["kind"] == "answer" or header.get("silo"):
                self._bars.lift(site)
            if header["kind"] == "answer":
                del waiting[site]
                yield site, body
            elif header.get("silo"):  # the silo's own word
                del waiting[site]
                yield site, Failure(str(header["reason"]))
            else:
                failed.add(site)
                lease.failed.add(site)
                why[site] = str(header.get("reason", _STOPPED))
        if waiting and lease.lost.wait(min(1.0, max(ends - time.monotonic(), 0.0))):
            self._lose(lease)

    def _wait_for_lease(self, ends: float) -> Lease | None:
        """Return the job that runs; submit one where there is none, once a quorum is connected; None after `ends`."""
        if self._lease is not None and self._lease.lost.is_set():
            self._lose(self._lease)
        while self._lease is None and time.monotonic() < ends:
            connected = self._find_usable(self._lost_at)
            expected = self._find_usable()
            if len(connected) < self.quorum or (
                connected != expected and time.time() < self._lost_at + 3 * HEARTBEAT_SECONDS
            ):
                time.sleep(LOOK_SECONDS)
                continue
            self._lease = self._submit(sorted(connected), ends)
        return self._lease

    def _submit(self, sites: Sequence[str], ends: float) -> Lease | None:
        """Submit a job to some silos and wait until its relay is here; None if it does not start."""
        name = secrets.token_hex(8)
        job = self._console.submit(name, sites, min(self.quorum, len(sites)))
        until, start = min(ends, time.monotonic() + READY_SECONDS), JobStart(frozenset(sites))
        while job is not None and time.monotonic() < until:
            try:
                arrived, present, line = self._arrived.get(timeout=1.0)
            except queue.Empty:
                fails, end = start.fails(self._console.parts(job, sites)), self._console.find_end(job)
                if fails or end:
                    self._give_up(job, start, end or "ended here")
                    return None
                continue
            if arrived == name:
                return self._begin(job, sites, present, line)
            line.close()  # an earlier job
        if job is not None:
            self._give_up(job, start, f"not ready after {READY_SECONDS:g} seconds" if time.monotonic() < ends else "")
        return None

    def _begin(self, job: str, sites: Sequence[str], present: Sequence[str], line: Line) -> Lease:
        """Take the job whose relay is here; leave out for a while whoever did not take it."""
        lease = Lease(job, line, frozenset(present))
        with suppress(Closed):  # the reader notices, and the next job is submitted
            line.send({"kind": "begin", "max_bytes": self.max_bytes})
        threading.Thread(target=lease.read, args=(self.max_bytes,), daemon=True).start()
        watching = (Console(self.folder / "console"), self._process)
        threading.Thread(target=lease.watch, args=watching, daemon=True).start()
        self.say(f"connected with {', '.join(sorted(present))}")
        missing = [site for site in sites if site not in present]
        refusals = self._console.find_refusals(job) if missing else {}
        for site in missing:
            words = f" ({refusals[site]})" if site in refusals else ""
            self._bars.put(site, f"it did not take a job{words}")
        return lease

    def _give_up(self, job: str, start: JobStart, end: str) -> None:
        """End a job that did not begin, and leave out for a while whoever kept it from that."""
        self._console.abort(job)
        if end:
            self.say(f"a job ended before it began ({end}); the next is submitted")
        for site in sorted(start.find_culprits()):
            self._bars.put(site, NOT_STARTED)

    def _find_usable(self, since: float = 0.0) -> set[str]:
        """Return the connected silos that a job may be submitted for.

        That is all of them if those that are left out are needed for the quorum.
        """
        connected = self._find_connected(max(since, time.time() - ABSENT_SECONDS))
        if since == 0.0:
            self._bars.release(self._bars.reasons().keys() - connected)
        usable = connected - self._bars.reasons().keys()
        return usable if len(usable) >= self.quorum else connected

    def _find_connected(self, since: float) -> set[str]:
        """Return the invited silos that gave a sign of life since a time; start NVFlare's process where it ended."""
        if not self._process.running():
            self._console.close()
            self.say(f"NVFlare's process at the coordinator ended, see {self._process.log}; it is started again")
            self._process.stop()  # what is left of it
            time.sleep(RESTART_SECONDS)
            self._process = self._start()
        gone, invited = self._lease.gone if self._lease is not None else {}, set(self.silos) - self._find_revoked()
        signs = self._console.signs_of_life()
        return {name for name, at in signs.items() if name in invited and at >= max(since, gone.get(name, 0.0))}

    def _lose(self, lease: Lease) -> None:
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
            lease.lost.wait(END_SECONDS)
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
