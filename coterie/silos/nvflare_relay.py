"""The two classes that run inside an NVFlare job: each hands bytes on, and knows nothing about them.

A job is a lease. It may end at any time, so nothing that matters lives in it: the rounds run in the coordinator's own
process and training in the silo's, and both are reached over a local socket (`coterie.silos.local_socket`).

NVFlare would load PyTorch into a job, to read tensors and, at its end, to clean up after those that it read. A relay
carries bytes alone, so it refuses the modules that do it: the job starts and ends sooner, stays small, and nobody's
tensor is ever parsed in it.
"""

from __future__ import annotations

import os
import queue
import sys
import threading
from contextlib import suppress
from pathlib import Path
from typing import Any

for _module in ("decomposers", "tensor_downloader"):
    sys.modules.setdefault(f"nvflare.app_opt.pt.{_module}", None)  # type: ignore[arg-type]

from nvflare.collab import collab  # noqa: E402

from coterie.silos.local_socket import FOLDER_VARIABLE, Closed, Line, connect  # noqa: E402

ABORT_LOOK_SECONDS = 0.5
"""How often the coordinator's relay looks whether its job was aborted."""


class CoordinatorRelay:
    """Hands the run's requests to silos, and their answers back, until the run ends the lease.

    Args:
        lease: the run's name for this job; a job that the run no longer waits for ends at once.
    """

    def __init__(self, lease: str) -> None:
        self.lease = lease

    @collab.main  # type: ignore[untyped-decorator]
    def run(self) -> None:
        """Serve the run's process until it ends the lease or goes away."""
        context, requests = collab.context, queue.Queue[tuple[dict[str, Any], bytes]]()
        line = _line()
        line.send({"kind": "ready", "lease": self.lease, "sites": [client.name for client in collab.clients]})
        threading.Thread(target=_receive, args=(line, requests), daemon=True).start()
        max_bytes = 0
        while not context.is_aborted():
            with suppress(queue.Empty):
                header, body = requests.get(timeout=ABORT_LOOK_SECONDS)
                if header["kind"] == "end":
                    return
                if header["kind"] == "begin":
                    max_bytes = int(header["max_bytes"])
                else:
                    self._ask(line, header, body, max_bytes)
        line.send({"kind": "lost"})

    def _ask(self, line: Line, header: dict[str, Any], body: bytes, max_bytes: int) -> None:
        """Send one message to a silo; a thread hands its answer back when it arrives."""
        answers = collab.get_clients([header["site"]])(blocking=False, timeout=header["seconds"]).answer(body)
        arguments = (line, {"number": header["number"], "site": header["site"]}, answers, max_bytes)
        threading.Thread(target=_hand_back, args=arguments, daemon=True).start()


def _hand_back(line: Line, about: dict[str, Any], answers: Any, max_bytes: int) -> None:
    """Wait for a silo's answer, and send it or the reason why there is none to the run."""
    failure, body, silo = "the silo gave no answer", b"", True
    for _, answer in answers:
        if isinstance(answer, dict) and isinstance(answer.get("failure"), str):
            failure = answer["failure"]
        elif not isinstance(answer, bytes):
            failure = "the answer is not bytes"
        elif len(answer) > max_bytes:
            failure = f"the answer has {len(answer)} bytes, above the largest message of {max_bytes}"
        else:
            failure, body = "", answer
    for error in answers.failures.values():  # NVFlare's word, not the silo's
        failure, silo = " ".join(str(error).split())[:500], False
    about |= {"kind": "failure", "reason": failure, "silo": silo} if failure else {"kind": "answer"}
    with suppress(Closed):
        line.send(about, body)


class SiloRelay:
    """Hands the coordinator's requests to the silo's own process, and its answers back."""

    def __init__(self) -> None:
        self._line = _line()
        self._one_at_a_time = threading.Lock()
        self._answers: queue.Queue[tuple[dict[str, Any], bytes]] = queue.Queue()
        threading.Thread(target=_receive, args=(self._line, self._answers), daemon=True).start()

    @collab.publish  # type: ignore[untyped-decorator]
    def answer(self, message: bytes) -> Any:
        """Return the silo's answer; its reason, in a dict, where it gives none."""
        if collab.caller != "server":  # NVFlare lets the silos of a job call one another
            return {"failure": "only the coordinator may ask a silo"}
        if not isinstance(message, bytes):
            return {"failure": "the message is not bytes"}
        with self._one_at_a_time:
            self._line.send({"kind": "ask"}, message)
            header, body = self._answers.get()
        return {"failure": str(header["failure"])} if "failure" in header else body


def _receive(line: Line, into: queue.Queue[tuple[dict[str, Any], bytes]]) -> None:
    """Take what the process sends that this job works for, and end with it, however far the job is."""
    while True:
        try:
            into.put(line.receive())
        except Closed:
            os._exit(0)


def _line() -> Line:
    """Connect to the process that this job works for.

    Raises:
        Closed: it has gone.
    """
    return connect(Path(os.environ[FOLDER_VARIABLE]))
