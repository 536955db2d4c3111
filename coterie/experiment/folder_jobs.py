"""Jobs that fill a run folder: what a run and a pre-training have in common from the first file to the last."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

from coterie.core.errors import Mistake
from coterie.report import write_report
from coterie.track import RunFolder
from coterie.track.checksums import REPORT_FILE, find_damage
from coterie.track.rounds_file import Record


@dataclass(frozen=True)
class Outcome:
    """How a run or a pre-training ended.

    Attributes:
        summary: the entries of summary.json.
        ran: whether anything was left to do.
    """

    folder: Path
    summary: dict[str, Any]
    ran: bool


class Job(Protocol):
    """A run or a pre-training that is ready to go on from its last checkpoint, or to start."""

    @property
    def records(self) -> list[Record]:
        """The records of the folder, earlier ones included."""

    def carry_out(self) -> dict[str, Any]:
        """Do all that is left to do, and return the entries of summary.json."""

    def withdraw(self) -> None:
        """Remove what the job wrote before its first record."""


def start_or_resume(
    folder: RunFolder, resume: bool, prepare: Callable[[], Job], prepare_rest: Callable[[], Job | None]
) -> Outcome:
    """Carry out a job in a folder, from its start or from where it was stopped.

    Args:
        folder: where it writes.
        resume: whether the folder may hold a job that has begun.
        prepare: makes the job that starts. It finds every mistake of the settings, before anything is written.
        prepare_rest: makes the job that goes on; returns None where it is finished.

    Raises:
        Mistake: the settings cannot be used, or the folder cannot.
    """
    if not folder.has_run:
        job = prepare()
        with folder.hold():
            if folder.has_run:
                raise _holds_a_run(folder)
            try:
                return Outcome(folder.path, job.carry_out(), ran=True)
            except Mistake:
                if not job.records:
                    job.withdraw()
                raise
    if not resume:
        raise _holds_a_run(folder)
    with folder.hold():
        rest = prepare_rest()
        if rest is not None:
            return Outcome(folder.path, rest.carry_out(), ran=True)
        return Outcome(folder.path, folder.read_summary() or {}, ran=False)


def _holds_a_run(folder: RunFolder) -> Mistake:
    return Mistake(
        f"{folder.path}: holds a run already; continue it with --resume, or choose another folder with --out"
    )


def write_end(folder: RunFolder, summary: dict[str, Any]) -> None:
    """Write the last files of a finished job: summary.json, the checksums of all files, then report.html."""
    folder.write_summary(summary)
    folder.seal(over=True)
    write_report(folder.path)


def write_missing_report(folder: RunFolder) -> None:
    """Write report.html unless it is there and undamaged."""
    if not (folder.path / REPORT_FILE).is_file() or find_damage(folder.path, [REPORT_FILE]):
        write_report(folder.path)
