"""One run of a sweep in a process of its own: what that process does, and what it says to the one that started it.

What takes long to import is imported when the process already watches the one that started it.
"""

from __future__ import annotations

import logging
import os
import pickle
import signal
import sys
import traceback
import warnings
from multiprocessing.connection import Connection
from pathlib import Path
from types import FrameType
from typing import TYPE_CHECKING, NamedTuple, NoReturn

from coterie.core.errors import FolderGone, Mistake, reason
from coterie.processes.parent_watch import watch_parent

if TYPE_CHECKING:
    from coterie.experiment.build_experiment import Experiment
    from coterie.track.rounds_file import Record


class Progress(NamedTuple):
    """How far a run is: a round is complete, or `round` rounds were run before."""

    round: int
    test_accuracy: float | None


class Note(NamedTuple):
    """Something that the user should know; the run goes on."""

    sentence: str


class End(NamedTuple):
    """A run is over; `why` says why it failed, where it did."""

    why: str | None


class _PipeWatch(logging.Handler):
    """Says through a pipe how a run goes on, and what the library logs; it is a `RunWatch`."""

    def __init__(self, pipe: Connection) -> None:
        super().__init__(logging.WARNING)
        self.pipe = pipe

    def begin(self, experiment: Experiment, folder: Path, records: list[Record]) -> None:
        """Say how many rounds were run before."""
        self.pipe.send(Progress(len(records), None))

    def round(self, record: Record) -> None:
        """Say that a round is complete."""
        self.pipe.send(Progress(record["round"], record["test_accuracy"]))

    def say(self, sentence: str) -> None:
        """Pass on a note."""
        self.pipe.send(Note(sentence))

    def emit(self, record: logging.LogRecord) -> None:
        """Pass on a warning of the library."""
        self.say(record.getMessage())


def run_point(settings: bytes, folder: Path, pipe: Connection) -> None:
    """Carry out a run, or what is left of it; this is the main function of a new process.

    The process ends when the one that started it ends, in whatever way. SIGTERM stops the run and keeps its rounds.

    Args:
        settings: what to run, a pickled `Settings`, since reading it imports PyTorch.
        folder: its run folder.
        pipe: where messages go: `Progress`, `Note`, and last `End`, unless the run is stopped.
    """
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C reaches all processes; the first decides what follows
    signal.signal(signal.SIGTERM, _interrupt)
    watch_parent()
    watch = _PipeWatch(pipe)
    logging.getLogger("coterie").addHandler(watch)
    warnings.filterwarnings("ignore", "Initializing zero-element tensors")
    try:
        from coterie.experiment.run import run

        outcome = run(pickle.loads(settings), folder, resume=True, watch=watch)  # noqa: S301 - our parent wrote it
        pipe.send(End(outcome.summary.get("failure")))
    except KeyboardInterrupt:
        _leave(1)
    except BrokenPipeError:
        _leave(1)
    except Exception as error:  # of any kind: the other runs go on
        pipe.send(End(_explain(error)))
        _leave(1)


def _interrupt(number: int, frame: FrameType | None) -> NoReturn:
    raise KeyboardInterrupt


def _leave(status: int) -> NoReturn:
    """End this process at once, without the traceback of what ended it."""
    sys.stderr.flush()
    os._exit(status)


def _explain(error: Exception) -> str:
    """Return why a run failed, in a sentence; what nobody expected leaves a traceback too."""
    from coterie.processes.lost import Lost

    if isinstance(error, Mistake | FolderGone | Lost):
        return str(error)
    if isinstance(error, MemoryError) or "can't allocate memory" in str(error) or "out of memory" in str(error):
        return "there is not enough memory; choose smaller data, models or batches, or fewer --jobs"
    if isinstance(error, OSError) and error.filename is not None:
        return f"{os.fsdecode(error.filename)}: cannot be used ({error.strerror})"
    traceback.print_exc()
    return f"{type(error).__name__}: {reason(error)}"
