"""Processes on this machine that run one federation together.

The calling process is the first of them. The others end when it ends, in whatever way.
"""

from __future__ import annotations

import multiprocessing
import os
import signal
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from multiprocessing.connection import Connection, wait
from multiprocessing.context import SpawnProcess
from pathlib import Path
from typing import Concatenate, NamedTuple, ParamSpec, TypeVar

from coterie.core.errors import require
from coterie.processes.lost import Lost
from coterie.processes.parent_watch import watch_parent
from coterie.processes.process_group import process_group
from coterie.processes.team import ALONE, Team

P = ParamSpec("P")
R = TypeVar("R")

START_SECONDS = 300.0
"""How long a new process may take to import what it needs."""
GRACE_SECONDS = 5.0
"""How long processes may take to end by themselves."""
READY = "ready"


def run_in_processes(workers: int, work: Callable[Concatenate[Team, P], R], *args: P.args, **kwargs: P.kwargs) -> R:
    """Run work(team, ...) in this process and in `workers` - 1 new ones at once; return what it returns here.

    `work` and its arguments must be picklable, and a script that calls this needs the usual
    `if __name__ == "__main__":`.

    Raises:
        Mistake: `workers` is below 1, or another process has raised one.
        Lost: another process has failed; the sentence says how.
    """
    same: Callable[[Team], R] = partial(_call, work, args, kwargs)
    return lead_processes(workers, same, same)


def _call(work: Callable[..., R], args: tuple[object, ...], kwargs: dict[str, object], team: Team) -> R:
    return work(team, *args, **kwargs)


def lead_processes(workers: int, lead: Callable[[Team], R], follow: Callable[[Team], object]) -> R:
    """Run lead(team) in this process and follow(team) in `workers` - 1 new ones at once; return what `lead` returns.

    `follow` must be picklable, and a script that calls this needs the usual `if __name__ == "__main__":`.

    Raises:
        Mistake: `workers` is below 1, or another process has raised one.
        Lost: another process has failed; the sentence says how.
    """
    require("workers", workers, workers >= 1, "1 or more")
    if workers == 1:
        return lead(ALONE)
    with tempfile.TemporaryDirectory() as folder, _new_processes(workers, folder, follow) as others:
        try:
            with process_group(0, workers, 0, Path(folder) / "meeting") as team:
                return lead(team)
        except Lost as lost:
            raise Lost(f"{_name_killed(others) or lost}; the run ends here") from lost


class _NewProcess(NamedTuple):
    """One of the new processes, and the pipe by which it says that it is ready."""

    process: SpawnProcess
    pipe: Connection


@contextmanager
def _new_processes(workers: int, folder: str, follow: Callable[[Team], object]) -> Iterator[list[_NewProcess]]:
    """Start the new processes and wait until they are ready; at the end of the block none of them is left."""
    others = [_start(rank, workers, folder, follow) for rank in range(1, workers)]
    try:
        for other in others:
            wait([other.pipe, other.process.sentinel], START_SECONDS)
            if not _is_ready(other):
                raise Lost(f"{_name_killed(others) or 'another process of this run could not start'}; it did not begin")
        yield others
        for other in others:
            other.process.join()
        if any(other.process.exitcode for other in others):
            raise Lost(_name_killed(others) or "another process of this run failed when its work was done")
    finally:
        for other in others:
            other.process.kill()
            other.process.join()


def _start(rank: int, size: int, folder: str, follow: Callable[[Team], object]) -> _NewProcess:
    """Start the process of this rank."""
    context = multiprocessing.get_context("spawn")
    receiving, sending = context.Pipe(duplex=False)
    process = context.Process(target=_run_new_process, args=(rank, size, folder, sending, follow), daemon=True)
    process.start()
    sending.close()
    return _NewProcess(process, receiving)


def _run_new_process(rank: int, size: int, folder: str, pipe: Connection, follow: Callable[[Team], object]) -> None:
    """Run `follow` in a new process; this is its main function."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C reaches all processes; the first decides what follows
    watch_parent()
    pipe.send(READY)
    try:
        with process_group(rank, size, rank, Path(folder) / "meeting") as team:
            follow(team)
    except BaseException:  # the group has left word of it for the first process
        os._exit(1)


def _is_ready(other: _NewProcess) -> bool:
    try:
        return other.pipe.poll() and other.pipe.recv() == READY
    except EOFError:
        return False


def _name_killed(others: list[_NewProcess]) -> str:
    """Return a sentence about the process that was killed; empty if none was."""
    ended = wait([other.process.sentinel for other in others], GRACE_SECONDS)
    for other in others:
        if other.process.sentinel in ended:
            other.process.join(GRACE_SECONDS)  # its end of a pipe closes a moment before its status is known
    for rank, other in enumerate(others, 1):
        status = other.process.exitcode
        if status is not None and status < 0:
            return f"process {rank} of this run was killed by signal {-status}"
    return ""
