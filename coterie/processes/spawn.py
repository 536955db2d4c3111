"""Processes on this machine that run one federation together. The calling process is one of them, the first; the others
end when it does, however it ends.
"""

from __future__ import annotations

import multiprocessing
import os
import signal
import tempfile
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import timedelta
from functools import partial
from multiprocessing.connection import Connection, wait
from multiprocessing.context import SpawnProcess
from pathlib import Path
from typing import Concatenate, NamedTuple, ParamSpec, TypeVar

from coterie.core.errors import Mistake
from coterie.processes.team import ALONE, Lost, Team
from coterie.processes.torchrun import process_group

P = ParamSpec("P")
R = TypeVar("R")

START = timedelta(minutes=5)
"""How long a new process may take to import what it needs."""
GRACE = 5.0
"""Seconds that processes get to end by themselves."""


def run_in_processes(workers: int, work: Callable[Concatenate[Team, P], R], *args: P.args, **kwargs: P.kwargs) -> R:
    """work(team, ...) in this process and in `workers` - 1 new ones, at once; what it returns here.

    `work` and its arguments must be picklable, and a script that calls this needs the usual
    `if __name__ == "__main__":`.

    Raises:
        Mistake: `workers` is below 1, or another of the processes met one.
        Lost: another of the processes failed; the sentence says how.
    """
    same: Callable[[Team], R] = partial(_called, work, args, kwargs)
    return lead_processes(workers, same, same)


def _called(work: Callable[..., R], args: tuple[object, ...], kwargs: dict[str, object], team: Team) -> R:
    return work(team, *args, **kwargs)


def lead_processes(workers: int, lead: Callable[[Team], R], follow: Callable[[Team], object]) -> R:
    """lead(team) in this process and follow(team) in `workers` - 1 new ones, at once; what `lead` returns.

    `follow` must be picklable, and a script that calls this needs the usual `if __name__ == "__main__":`.

    Raises:
        Mistake: `workers` is below 1, or another of the processes met one.
        Lost: another of the processes failed; the sentence says how.
    """
    if workers < 1:
        raise Mistake(f"workers = {workers}: it must be 1 or more")
    if workers == 1:
        return lead(ALONE)
    with tempfile.TemporaryDirectory() as folder, _others(workers, folder, follow) as others:
        try:
            with process_group(0, workers, 0, Path(folder) / "meeting") as team:
                return lead(team)
        except Lost as lost:
            raise Lost(f"{_killed(others) or lost}; the run ends here") from lost


class _Other(NamedTuple):
    """One of the new processes, and where it says that it is ready."""

    process: SpawnProcess
    said: Connection


@contextmanager
def _others(workers: int, folder: str, follow: Callable[[Team], object]) -> Iterator[list[_Other]]:
    """The new processes, ready to meet; none of them is left at the end."""
    others = [_started(rank, workers, folder, follow) for rank in range(1, workers)]
    try:
        for other in others:
            wait([other.said, other.process.sentinel], START.total_seconds())
            if not _ready(other):
                raise Lost(f"{_killed(others) or 'another process of this run could not start'}; it did not begin")
        yield others
        for other in others:
            other.process.join()
        if any(other.process.exitcode for other in others):
            raise Lost(_killed(others) or "another process of this run failed when its work was done")
    finally:
        for other in others:
            other.process.kill()
            other.process.join()


def _started(rank: int, size: int, folder: str, follow: Callable[[Team], object]) -> _Other:
    context = multiprocessing.get_context("spawn")
    said, saying = context.Pipe(duplex=False)
    process = context.Process(target=_member, args=(rank, size, folder, saying, follow), daemon=True)
    process.start()
    saying.close()
    return _Other(process, said)


READY = "ready"


def _member(rank: int, size: int, folder: str, saying: Connection, follow: Callable[[Team], object]) -> None:
    """What a new process does."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C reaches all; the first process decides what comes of it
    threading.Thread(target=_end_with_parent, daemon=True).start()
    saying.send(READY)
    try:
        with process_group(rank, size, rank, Path(folder) / "meeting") as team:
            follow(team)
    except BaseException:  # the group has left word of it for the first process
        os._exit(1)


def _ready(other: _Other) -> bool:
    try:
        return other.said.poll() and other.said.recv() == READY
    except EOFError:
        return False


def _end_with_parent() -> None:
    parent = multiprocessing.parent_process()
    assert parent is not None
    wait([parent.sentinel])
    os._exit(1)


def _killed(others: list[_Other]) -> str:
    """Which process was killed, in a sentence; empty if none was."""
    ended = wait([other.process.sentinel for other in others], GRACE)
    for other in others:
        if other.process.sentinel in ended:
            other.process.join(GRACE)  # its end of a pipe closes a moment before its status is known
    for rank, other in enumerate(others, 1):
        status = other.process.exitcode
        if status is not None and status < 0:
            return f"process {rank} of this run was killed by signal {-status}"
    return ""
