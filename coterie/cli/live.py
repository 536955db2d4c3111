"""What shows how far a long work has come: a live line in a terminal, plain lines elsewhere, remarks beside it."""

from __future__ import annotations

import time

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TaskID, TextColumn, TimeRemainingColumn


class Live:
    """The progress of one work, counted in rounds or in steps.

    Args:
        counted: in what.
        pause: seconds between two plain lines at least.
    """

    def __init__(self, counted: str, pause: float) -> None:
        self.counted, self.pause = counted, pause
        self.out = Console(highlight=False)
        self.err = Console(stderr=True, highlight=False, soft_wrap=True)
        self.bar: Progress | None = None
        self.task, self.total, self.last, self.printed, self.quiet_until = TaskID(0), 0, (0, ""), 0, 0.0

    def begin(self, total: int, done: int) -> None:
        """Show a live line, if this is a terminal."""
        self.total = total
        if not self.out.is_terminal:
            return
        columns = (TextColumn(self.counted), MofNCompleteColumn(), BarColumn(bar_width=24))
        told = TextColumn("{task.fields[told]}")
        self.bar = Progress(*columns, told, TimeRemainingColumn(compact=True), TextColumn("left"), console=self.out)
        self.task = self.bar.add_task("", total=total, completed=done, told="")
        self.bar.start()

    def show(self, number: int, told: str, worth_a_line: bool = True) -> None:
        """Where the work is: at once in a terminal; elsewhere a line now and then, if it is worth one."""
        self.last = number, told
        if self.bar is not None:
            self.bar.update(self.task, completed=number, told=told)
        elif worth_a_line and time.monotonic() >= self.quiet_until:
            self._print_last()

    def _print_last(self) -> None:
        number, told = self.last
        if number and number != self.printed:
            print(f"{self.counted} {number}/{self.total}  {told}", flush=True)
            self.printed = number
        self.quiet_until = time.monotonic() + self.pause

    def say(self, sentence: str) -> None:
        """A remark, on standard error."""
        (self.bar.console if self.bar else self.err).print(f"note: {sentence}", markup=False)

    def close(self) -> None:
        """Leave the live line as it stands, or print the last plain one."""
        if self.bar is not None:
            self.bar.stop()
            self.bar = None
        elif not self.out.is_terminal:
            self._print_last()
