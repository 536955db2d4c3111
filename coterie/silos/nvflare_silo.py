"""A silo's end of the NVFlare carrier.

The silo's own process trains. It starts NVFlare's process, which dials the coordinator, and answers what the relays of
NVFlare's jobs hand it (`coterie.silos.nvflare_relay`). Jobs come and go; this process stays.
"""

from __future__ import annotations

import queue
import threading
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from types import TracebackType

from coterie.core.errors import reason
from coterie.core.packages import import_package
from coterie.silos.carrier import Answer
from coterie.silos.local_socket import Closed, Line, Meeting
from coterie.silos.nvflare_kit import HEARTBEAT_SECONDS, LARGEST_BYTES, LOOK_SECONDS, RESTART_SECONDS, remove_old_jobs
from coterie.silos.party_process import PartyProcess
from coterie.silos.project import Invitation, read_kit

_CLIENT = "nvflare.private.fed.app.client.client_train"


class NVFlareSilo:
    """A silo that answers; use it in a `with` statement, and call `serve`.

    Args:
        kit: a folder that has joined a project (`coterie.silos.project.join`).
        max_bytes: the largest message, either way.
        say: what is called with a sentence for people when something happens.

    Raises:
        Mistake: NVFlare is not installed, or the kit is not complete.
        OSError: a process cannot be started.
    """

    def __init__(
        self, kit: Path, *, max_bytes: int = LARGEST_BYTES, say: Callable[[str], None] = lambda _: None
    ) -> None:
        import_package("nvflare", "coterie deploy", "deploy")
        self.kit, self.max_bytes, self.say = kit.resolve(), max_bytes, say
        self.invitation: Invitation = read_kit(self.kit)[0]
        self._meeting = Meeting()
        self._requests: queue.Queue[tuple[Line, bytes]] = queue.Queue()
        self._lines: list[Line] = []
        self._closing = threading.Event()
        self._process = self._start()
        for work in (self._accept, self._watch):
            threading.Thread(target=work, daemon=True).start()

    def __enter__(self) -> NVFlareSilo:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def serve(self, answer: Answer) -> None:
        """Answer the coordinator's messages, one at a time, until `close` is called."""
        while not self._closing.is_set():
            with suppress(queue.Empty):
                line, message = self._requests.get(timeout=LOOK_SECONDS)
                header, body = self._answer(answer, message)
                with suppress(Closed):  # the job has ended meanwhile, and the next one asks again
                    line.send(header, body)

    def close(self) -> None:
        """End NVFlare's process and `serve`; harmless when called twice."""
        self._closing.set()
        self._process.stop()
        self._meeting.close()
        for line in self._lines:
            line.close()

    def _answer(self, answer: Answer, message: bytes) -> tuple[dict[str, str], bytes]:
        """Return an answer; or the reason for none, which says nothing of what is in the silo's data."""
        if len(message) > self.max_bytes:
            return self._refuse(f"the message has {len(message)} bytes, above this silo's largest of {self.max_bytes}")
        try:
            body = answer(message)
        except Exception as error:
            self.say(f"no answer was given: {type(error).__name__}: {reason(error)}")
            return {"failure": f"the silo failed with {type(error).__name__}; its own log says more"}, b""
        if len(body) > self.max_bytes:
            return self._refuse(f"the answer has {len(body)} bytes, above this silo's largest of {self.max_bytes}")
        return {}, body

    def _refuse(self, sentence: str) -> tuple[dict[str, str], bytes]:
        """Say a refusal here and return it for the coordinator."""
        self.say(sentence)
        return {"failure": sentence}, b""

    def _accept(self) -> None:
        """Take the relays that connect, each with a thread that reads what it asks."""
        with suppress(Closed):
            while True:
                line = self._meeting.accept()
                self._lines = [*(each for each in self._lines if not each.ended), line]
                self.say("a run is connected")
                threading.Thread(target=self._read, args=(line,), daemon=True).start()

    def _read(self, line: Line) -> None:
        """Take what a relay asks until it goes away."""
        with suppress(Closed):
            while True:
                self._requests.put((line, line.receive()[1]))

    def _watch(self) -> None:
        """Start NVFlare's process again whenever it ends, as when the coordinator is away for long."""
        while not self._closing.wait(RESTART_SECONDS):
            if not self._process.running():
                where = f"{self.invitation.host}:{self.invitation.port}"
                self.say(f"no connection with {where}, see {self._process.log}; trying again")
                self._process.stop()  # what is left of it
                self._process = self._start()

    def _start(self) -> PartyProcess:
        """Start NVFlare's process of the silo."""
        remove_old_jobs(self.kit)
        arguments = ["-m", str(self.kit), "-s", "fed_client.json", "--set", "secure_train=true", "org=coterie"]
        arguments += [f"uid={self.invitation.silo}", f"heart_beat_interval={HEARTBEAT_SECONDS}", "config_folder=config"]
        return PartyProcess(_CLIENT, arguments, self.kit / "process.txt", self._meeting.folder)
