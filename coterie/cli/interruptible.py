"""How a long command is stopped, and what it says then."""

from __future__ import annotations

import signal
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from typing import NoReturn

import typer

from coterie.processes.team import Lost


@contextmanager
def interruptible(again: str, counted: str) -> Iterator[None]:
    """A block that Ctrl-C, or a polite request to end, stops between two records; then it says how to go on. So it does
    where another process of the run has ended.

    Args:
        again: the command that goes on.
        counted: what a record is of, such as "round".
    """

    def interrupt(number: int, frame: object) -> NoReturn:
        raise KeyboardInterrupt

    before = signal.signal(signal.SIGTERM, interrupt)
    try:
        yield
    except KeyboardInterrupt as stop:
        said = str(stop) or f"stopped; every {counted} that was complete is kept; continue"
        print(f"{said} with\n  {again}", file=sys.stderr)
        raise typer.Exit(1) from None
    except Lost as lost:
        print(f"{lost}; continue from the last checkpoint with\n  {again}", file=sys.stderr)
        raise typer.Exit(1) from None
    finally:
        signal.signal(signal.SIGTERM, before)
