"""Stop a long command, and say how to continue it."""

from __future__ import annotations

import signal
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from typing import NoReturn

import typer


@contextmanager
def handle_interrupts(command: str, unit: str) -> Iterator[None]:
    """End the command with status 1, and print how to continue, where a block is interrupted.

    Ctrl-C, SIGTERM and the end of its terminal interrupt it, and so does the end of another process of the run.

    Args:
        command: continues the work.
        unit: what is kept of the work, such as "round".
    """
    from coterie.experiment.stop_requests import stop_signals
    from coterie.processes.lost import Lost

    def raise_interrupt(number: int, frame: object) -> NoReturn:
        raise KeyboardInterrupt

    before = {number: signal.signal(number, raise_interrupt) for number in stop_signals()}
    try:
        yield
    except KeyboardInterrupt as stop:
        message = str(stop) or f"stopped; every complete {unit} is kept; continue"
        print(f"{message} with\n  {command}", file=sys.stderr)
        raise typer.Exit(1) from None
    except Lost as lost:
        print(f"{lost}; continue from the last checkpoint with\n  {command}", file=sys.stderr)
        raise typer.Exit(1) from None
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
