"""A silo's work in a child process, so that its death is one answer that is missing and not the end of the silo.

Training may run out of memory, a model of the user's own may crash the interpreter, and somebody may kill the process.
Then the silo answers that the work failed, and the next request starts a new child, which continues from the disk.
"""

from __future__ import annotations

import multiprocessing
import signal
import threading
from collections.abc import Callable
from multiprocessing.connection import Connection
from multiprocessing.context import SpawnProcess
from typing import Any

from coterie.core.errors import Mistake, reason
from coterie.processes.parent_watch import watch_parent
from coterie.silos.carrier import Answer
from coterie.silos.letters import Run, answer_failed
from coterie.silos.message import MAX_BYTES, Unusable, read_message

READY = b"ready"
CLOSE_SECONDS = 5.0
"""How long a child may take to end by itself."""


class Child:
    """An answer that is computed in a child process. It starts with the first request.

    Args:
        make: makes the answer in the child, such as a function that reads the silo's data and returns a
            `coterie.silos.silo.Silo`. It and its arguments must be picklable, so it is a function of a module.
        *args: its arguments.
    """

    def __init__(self, make: Callable[..., Answer], *args: Any) -> None:
        self._make, self._args = make, args
        self._process: SpawnProcess | None = None
        self._pipe: Connection | None = None
        self._one_at_a_time = threading.Lock()

    def __call__(self, request: bytes) -> bytes:
        """Return the child's answer; where there is none, the answer that the work failed, with the reason."""
        with self._one_at_a_time:
            try:
                pipe = self._pipe or self._start()
                pipe.send_bytes(request)
                return pipe.recv_bytes()
            except Mistake as mistake:  # the child cannot make its answer
                why = str(mistake)
            except (OSError, EOFError):
                why = f"the process that works at the silo {self._end()}; the next request starts a new one"
            self._forget()
            return answer_failed(_run_of(request), request, why)

    def close(self) -> None:
        """End the child."""
        with self._one_at_a_time:
            if self._pipe is not None:
                self._pipe.close()
            if self._process is not None:
                self._process.join(CLOSE_SECONDS)
            self._forget()

    def _start(self) -> Connection:
        """Start a child, and return the pipe to it once it is ready.

        Raises:
            Mistake: it cannot make its answer.
            EOFError, OSError: it has died.
        """
        context = multiprocessing.get_context("spawn")
        pipe, theirs = context.Pipe()
        self._process = context.Process(target=_serve, args=(theirs, self._make, self._args), daemon=True)
        self._process.start()
        theirs.close()
        self._pipe = pipe
        first = pipe.recv_bytes()
        if first != READY:
            raise Mistake(first.decode(errors="replace"))
        return pipe

    def _end(self) -> str:
        """Return how the child ended."""
        assert self._process is not None
        self._process.join(CLOSE_SECONDS)
        code = self._process.exitcode
        if code == -signal.SIGKILL:
            return "was killed, perhaps since memory ran out"
        return f"ended by signal {-code}" if code is not None and code < 0 else f"ended with exit status {code}"

    def _forget(self) -> None:
        """Make sure that the child is gone, so that the next request starts a new one."""
        if self._process is not None and self._process.is_alive():
            self._process.kill()
        if self._pipe is not None:
            self._pipe.close()
        self._process = self._pipe = None


def _run_of(request: bytes) -> Run:
    """Return the run that a request says it belongs to. Without a child nobody here knows better."""
    try:
        fields = read_message(request, MAX_BYTES).fields
    except Unusable:
        return Run("", "")
    run, experiment = fields.get("run"), fields.get("experiment")  # before the first round there is no experiment
    return Run(run if isinstance(run, str) else "", experiment if isinstance(experiment, str) else "")


def _serve(pipe: Connection, make: Callable[..., Answer], args: tuple[Any, ...]) -> None:
    """Answer requests in the child until the other end closes."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # a person's Ctrl-C stops the silo, which ends its child
    watch_parent()
    try:
        answer = make(*args)
    except Exception as error:  # a user's model or data may raise anything; the silo's answer says what
        pipe.send_bytes(
            (str(error) if isinstance(error, Mistake) else f"{type(error).__name__}: {reason(error)}").encode()
        )
        return
    pipe.send_bytes(READY)
    while True:
        try:
            request = pipe.recv_bytes()
        except EOFError:
            return
        pipe.send_bytes(answer(request))
