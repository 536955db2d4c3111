"""How the user asks a run in several processes to stop."""

from __future__ import annotations

import math
import signal
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from coterie.processes.team import Team

REPEAT_SECONDS = 1.0
"""A second request counts from this long after the first: launchers pass on signals that processes have had already."""


def stop_signals() -> list[signal.Signals]:
    """Return the signals besides Ctrl-C's that ask a run to stop: SIGTERM, and that of a terminal which goes away.

    The latter does not count where it is ignored, as below `nohup`.
    """
    hangup = getattr(signal, "SIGHUP", None)  # not on Windows
    if hangup is None or signal.getsignal(hangup) == signal.SIG_IGN:
        return [signal.SIGTERM]
    return [signal.SIGTERM, hangup]


class StopRequest:
    """Whether the user has asked the run to stop, and when."""

    def __init__(self) -> None:
        self.made_at = math.inf

    @property
    def is_made(self) -> bool:
        """Whether the user has asked."""
        return self.made_at < math.inf


@contextmanager
def stop_requests(team: Team) -> Iterator[StopRequest]:
    """Take Ctrl-C or one of `stop_signals` as a request to stop after the round, for the length of a block.

    The first process of several does so, since the others cannot be left in the middle of a round. A second request
    ends the block at once. A process that runs alone is interrupted at once.

    Raises:
        KeyboardInterrupt: at the second request, and in a process that runs alone at the first.
    """
    request = StopRequest()

    def ask(number: int, frame: FrameType | None) -> None:
        now = time.monotonic()
        if now - request.made_at > REPEAT_SECONDS:
            raise KeyboardInterrupt("stopped at once; continue from the last checkpoint")
        if not request.is_made:
            request.made_at = now
            print("stopping after this round; once more stops at once", file=sys.stderr, flush=True)

    if team.size == 1 or team.rank > 0 or threading.current_thread() is not threading.main_thread():
        yield request
        return
    before = {number: signal.signal(number, ask) for number in (signal.SIGINT, *stop_signals())}
    try:
        yield request
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def ignore_stop_requests() -> None:
    """Ignore Ctrl-C and `stop_signals` from now on: the first process decides what they mean."""
    if threading.current_thread() is threading.main_thread():
        for number in (signal.SIGINT, *stop_signals()):
            signal.signal(number, signal.SIG_IGN)
