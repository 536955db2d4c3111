"""Carry out the runs of a sweep in processes of their own, several at once."""

from __future__ import annotations

import multiprocessing
import pickle
import time
from collections import deque
from collections.abc import Sequence
from multiprocessing.connection import Connection, wait
from multiprocessing.context import SpawnProcess
from pathlib import Path
from typing import NamedTuple, Protocol

from coterie.report.sweep_folder import RUNS
from coterie.sweep.child_process import End, Note, Progress, run_point
from coterie.sweep.points import Point

STOP_SECONDS = 60.0
"""How long runs may take to keep their last round when the sweep is stopped."""


class SweepWatch(Protocol):
    """An object that is told how a sweep goes on."""

    def check(self, number: int, total: int) -> None:
        """The settings of this many of all points are in order."""

    def begin(self, points: Sequence[Point], left: Sequence[Point], jobs: int) -> None:
        """These runs are left, and so many go on at once."""

    def start(self, point: Point) -> None:
        """A run starts."""

    def round(self, point: Point, number: int, test_accuracy: float | None) -> None:
        """A run has done this many rounds."""

    def say(self, point: Point, sentence: str) -> None:
        """Something that the user should know about a run; it goes on."""

    def end(self, point: Point, why: str | None) -> None:
        """A run is over; `why` says why it failed."""


class _Running(NamedTuple):
    point: Point
    process: SpawnProcess


def run_side_by_side(points: Sequence[Point], folder: Path, jobs: int, watch: SweepWatch) -> dict[str, str]:
    """Carry out all runs, `jobs` at once; one that fails stops no other.

    At the end none of the processes is left, also after Ctrl-C; runs then keep their complete rounds.

    Args:
        points: what is run.
        folder: of the sweep.
        jobs: how many runs go on at once.
        watch: is told how they go on.

    Returns:
        The name of each run that failed -> why.
    """
    waiting, running = deque(points), dict[Connection, _Running]()
    failed: dict[str, str] = {}
    try:
        while waiting or running:
            while waiting and len(running) < jobs:
                point = waiting.popleft()
                running.update([_start(point, folder)])
                watch.start(point)
            for pipe in [pipe for pipe in wait(list(running)) if isinstance(pipe, Connection)]:
                end = _hear(pipe, running[pipe], watch)
                if end is None:
                    continue
                point = running.pop(pipe).point
                pipe.close()
                if end.why is not None:
                    failed[point.name] = end.why
                watch.end(point, end.why)
    finally:
        _stop([each.process for each in running.values()])
    return failed


def _start(point: Point, folder: Path) -> tuple[Connection, _Running]:
    """Start the process of a run, and return the pipe by which it says how it goes on, and the process."""
    context = multiprocessing.get_context("spawn")
    receiving, sending = context.Pipe(duplex=False)
    settings = pickle.dumps(point.settings)
    process = context.Process(target=run_point, args=(settings, folder / RUNS / point.name, sending))
    process.start()
    sending.close()
    return receiving, _Running(point, process)


def _hear(pipe: Connection, running: _Running, watch: SweepWatch) -> End | None:
    """Take one message of a run, and return how it ended if this was the last."""
    try:
        message = pipe.recv()
    except (EOFError, OSError):  # it ended without a word
        running.process.join()
        return End(_describe_status(running.process.exitcode))
    if isinstance(message, End):
        running.process.join()
        return message
    if isinstance(message, Note):
        watch.say(running.point, message.sentence)
    elif isinstance(message, Progress):
        watch.round(running.point, message.round, message.test_accuracy)
    return None


def _describe_status(status: int | None) -> str:
    """Return how a process ended that said nothing.

    >>> _describe_status(-9), _describe_status(3)
    ('it was killed by signal 9, perhaps since the memory was full; try fewer --jobs', 'it ended with status 3')
    """
    if status is not None and status < 0:
        return f"it was killed by signal {-status}, perhaps since the memory was full; try fewer --jobs"
    return f"it ended with status {status}"


def _stop(processes: Sequence[SpawnProcess]) -> None:
    """End processes: they may keep their last round, and are killed where they take too long or on a second Ctrl-C."""
    try:
        for process in processes:
            process.terminate()
        until = time.monotonic() + STOP_SECONDS
        for process in processes:
            process.join(max(0.0, until - time.monotonic()))
    finally:
        for process in processes:
            process.kill()
            process.join()
