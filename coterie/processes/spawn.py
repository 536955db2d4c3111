"""Processes on this machine that run one federation together.

The calling process is the first of them. The others are copies of it where that is safe (`coterie.processes.copies`),
and share its memory; elsewhere they start afresh. They end when the first ends, in whatever way.
"""

from __future__ import annotations

import gc
import multiprocessing
import os
import signal
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager, nullcontext
from functools import partial
from multiprocessing.connection import Connection, wait
from multiprocessing.process import BaseProcess
from pathlib import Path
from typing import Concatenate, NamedTuple, ParamSpec, TypeVar

from coterie.core.errors import require
from coterie.processes.copies import can_be_copied
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
_SIGNALS = [signal.SIGINT, signal.SIGTERM, *([signal.SIGHUP] if hasattr(signal, "SIGHUP") else [])]
"""What asks a run to stop."""


def run_in_processes(workers: int, work: Callable[Concatenate[Team, P], R], *args: P.args, **kwargs: P.kwargs) -> R:
    """Run work(team, ...) in this process and in `workers` - 1 new ones at once; return what it returns here.

    `work` and its arguments must be picklable, and a script that calls this needs the usual
    `if __name__ == "__main__":`, since processes do not start as copies everywhere.

    Raises:
        Mistake: `workers` is below 1, or another process has raised one.
        Lost: another process has failed; the sentence says how.
    """
    same: Callable[[Team], R] = partial(_call, work, args, kwargs)
    return lead_processes(workers, same, same)


def _call(work: Callable[..., R], args: tuple[object, ...], kwargs: dict[str, object], team: Team) -> R:
    return work(team, *args, **kwargs)


def lead_processes(
    workers: int,
    lead: Callable[[Team], R],
    follow: Callable[[Team], object],
    follow_as_copy: Callable[[Team], object] | None = None,
) -> R:
    """Run lead(team) in this process and follow(team) in `workers` - 1 new ones at once; return what `lead` returns.

    Args:
        workers: how many processes there are, this one included.
        lead: what this process runs.
        follow: what the others run. It must be picklable, and a script that calls this needs the usual
            `if __name__ == "__main__":`.
        follow_as_copy: what they run instead where they are copies of this process. It may use everything that is in
            memory here, and need not be picklable. By default `follow`.

    Raises:
        Mistake: `workers` is below 1, or another process has raised one.
        Lost: another process has failed; the sentence says how.
    """
    require("workers", workers, workers >= 1, "1 or more")
    if workers == 1:
        return lead(ALONE)
    method, follow = ("fork", follow_as_copy or follow) if can_be_copied() else ("spawn", follow)
    with tempfile.TemporaryDirectory() as folder, _new_processes(workers, folder, follow, method) as others:
        try:
            with process_group(0, workers, 0, Path(folder) / "meeting") as team:
                return lead(team)
        except Lost as lost:
            raise Lost(f"{_name_killed(others) or lost}; the run ends here") from lost


class _NewProcess(NamedTuple):
    """One of the new processes, and the pipe by which it says that it is ready."""

    process: BaseProcess
    pipe: Connection


@contextmanager
def _new_processes(
    workers: int, folder: str, follow: Callable[[Team], object], method: str
) -> Iterator[list[_NewProcess]]:
    """Start the new processes and wait until they are ready; at the end of the block none of them is left."""
    others: list[_NewProcess] = []
    gc.freeze()  # the collector writes into each object that it looks at, and what is written into is not shared
    try:
        for rank in range(1, workers):
            others.append(_start(rank, workers, folder, follow, method))
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
        gc.unfreeze()


def _start(rank: int, size: int, folder: str, follow: Callable[[Team], object], method: str) -> _NewProcess:
    """Start the process of this rank."""
    context = multiprocessing.get_context(method)
    receiving, sending = context.Pipe(duplex=False)
    main, start = (_run_copy, _hold_signals()) if method == "fork" else (_run_new_process, nullcontext())
    arguments = (rank, size, folder, sending, follow)
    process: BaseProcess = context.Process(target=main, args=arguments, daemon=True)  # type: ignore[attr-defined]
    with start:
        process.start()
    sending.close()
    return _NewProcess(process, receiving)


@contextmanager
def _hold_signals() -> Iterator[None]:
    """Let signals wait for the length of a block, so that none meets a copy that would do what this process does."""
    before = signal.pthread_sigmask(signal.SIG_BLOCK, _SIGNALS)
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


def _run_copy(rank: int, size: int, folder: str, pipe: Connection, follow: Callable[[Team], object]) -> None:
    """Run `follow` in a copy of the first process, which does at a signal what a process does that starts afresh."""
    for number in _SIGNALS:
        if signal.getsignal(number) != signal.SIG_IGN:
            signal.signal(number, signal.SIG_DFL)
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # as below, and before it can come
    signal.pthread_sigmask(signal.SIG_UNBLOCK, _SIGNALS)
    _run_new_process(rank, size, folder, pipe, follow)


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
