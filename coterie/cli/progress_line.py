"""Show the progress of a long command: a live line in a terminal, plain lines elsewhere, notes beside them."""

from __future__ import annotations

import time
from collections.abc import Iterable

from rich.console import Console, RenderableType
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TaskID, TextColumn, TimeRemainingColumn
from rich.text import Text

from coterie.core.printable import printable
from coterie.report.formats import format_duration


class _Bar(Progress):
    """A live line, with a second one below it for what does not fit."""

    below = ""

    def get_renderables(self) -> Iterable[RenderableType]:
        """Yield the lines."""
        yield from super().get_renderables()
        if self.below:
            yield Text(self.below, style="dim", no_wrap=True, overflow="crop")


class ProgressLine:
    """The progress of a command, counted in rounds or in steps.

    Args:
        unit: what is counted, such as "round".
        pause_seconds: the least time between two plain lines.
    """

    def __init__(self, unit: str, pause_seconds: float) -> None:
        self.unit, self.pause_seconds = unit, pause_seconds
        self.out = Console(highlight=False)
        self.err = Console(stderr=True, highlight=False, soft_wrap=True)
        self.bar: _Bar | None = None
        self.task, self.total, self.last, self.last_printed, self.quiet_until = TaskID(0), 0, (0, ""), 0, 0.0
        self.began, self.done_before = time.monotonic(), 0

    def begin(self, total: int, done: int) -> None:
        """Start the live line if this is a terminal."""
        self.total, self.done_before, self.began = total, done, time.monotonic()
        if not self.out.is_terminal:
            return
        columns = (TextColumn(self.unit), MofNCompleteColumn(), BarColumn(bar_width=24))
        text = TextColumn("{task.fields[text]}")
        self.bar = _Bar(*columns, text, TimeRemainingColumn(compact=True), TextColumn("left"), console=self.out)
        self.task = self.bar.add_task("", total=total, completed=done, text="")
        self.bar.start()

    def show(self, number: int, text: str, speed: str = "", slow: str = "", print_line: bool = True) -> None:
        """Update the live line or, outside a terminal, print a plain line if the last one is long enough ago.

        Args:
            number: the last unit that is done.
            text: shown beside it.
            speed: shown after that, or on a live line below it.
            slow: what takes the time; only a live line has room for it.
            print_line: whether a plain line may be printed for it, where there is no terminal.
        """
        self.last = number, "  ".join(filter(None, (text, speed)))
        if self.bar is not None:
            self.bar.below = "  ".join(filter(None, (speed, slow)))
            self.bar.update(self.task, completed=number, text=text)
        elif print_line and time.monotonic() >= self.quiet_until:
            self._print_last()

    def _print_last(self) -> None:
        """Print the last unit shown as a plain line, unless it is printed already."""
        number, text = self.last
        if number and number != self.last_printed:
            print(f"{self.unit} {number}/{self.total}  {text}{self._time_left(number)}", flush=True)
            self.last_printed = number
        self.quiet_until = time.monotonic() + self.pause_seconds

    def _time_left(self, number: int) -> str:
        """Return how long the rest will take at the speed so far; empty at the end."""
        done = number - self.done_before
        if done < 1 or number >= self.total:
            return ""
        return f"  {format_duration((time.monotonic() - self.began) / done * (self.total - number))} left"

    def note(self, sentence: str) -> None:
        """Print a note to standard error."""
        (self.bar.console if self.bar else self.err).print(f"note: {printable(sentence)}", markup=False)

    def close(self) -> None:
        """Stop the live line where it stands, or print the last plain line."""
        if self.bar is not None:
            self.bar.stop()
            self.bar = None
        elif not self.out.is_terminal:
            self._print_last()
