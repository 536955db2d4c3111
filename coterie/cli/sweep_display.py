"""Show a sweep on the terminal: how many runs are done, the runs that go on now, and the time that is left."""

from __future__ import annotations

import sys
import time
from collections.abc import Sequence

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TaskID, TextColumn, TimeRemainingColumn

from coterie.core.printable import printable
from coterie.report.formats import format_duration, format_percent
from coterie.sweep.points import Point


class SweepDisplay:
    """Shows a sweep; it is a `coterie.sweep.side_by_side.SweepWatch`.

    On a terminal the runs that go on have a bar each, below one for all rounds; elsewhere a line says how each ended.
    """

    def __init__(self) -> None:
        self.out = Console(highlight=False)
        self.bars: Progress | None = None
        self.all_rounds = TaskID(0)
        self.tasks: dict[str, TaskID] = {}
        self.rounds: dict[str, int] = {}
        self.rounds_left, self.rounds_done, self.runs, self.runs_done, self.began = 0, 0, 0, 0, 0.0
        self.accuracies: dict[str, float] = {}

    def __enter__(self) -> SweepDisplay:
        return self

    def __exit__(self, *error: object) -> None:
        self._close()
        sys.stdout.flush()

    def _close(self) -> None:
        if self.bars is not None:
            self.bars.stop()
            self.bars = None

    def check(self, number: int, total: int) -> None:
        """Show that the settings are being checked."""
        if number == total:
            print(f"{total} {'setting is' if total == 1 else 'settings are'} in order", flush=True)

    def begin(self, points: Sequence[Point], left: Sequence[Point], jobs: int) -> None:
        """Print how many runs are left, and start the bars on a terminal."""
        self._close()
        done = len(points) - len(left)
        before = f", {done} of {len(points)} done before" if done else ""
        runs = "1 run" if len(left) == 1 else f"{len(left)} runs"
        print(f"{runs}, {min(jobs, len(left))} at once{before}", flush=True)
        self.runs, self.runs_done, self.began = len(left), 0, time.monotonic()
        self.rounds_left, self.rounds_done = sum(point.settings.rounds for point in left), 0
        if not self.out.is_terminal:
            return
        columns = (TextColumn("{task.description}", markup=False), BarColumn(bar_width=24), MofNCompleteColumn())
        text = TextColumn("{task.fields[text]}", markup=False)
        self.bars = Progress(*columns, text, TimeRemainingColumn(compact=True), TextColumn("left"), console=self.out)
        self.all_rounds = self.bars.add_task("rounds of all runs", total=self.rounds_left, text="")
        self.bars.start()

    def start(self, point: Point) -> None:
        """Give the run a bar."""
        self.rounds[point.name] = 0
        if self.bars is not None:
            self.tasks[point.name] = self.bars.add_task(printable(point.name), total=point.settings.rounds, text="")

    def round(self, point: Point, number: int, test_accuracy: float | None) -> None:
        """Move the run's bar, and that of all rounds."""
        self.rounds_done += number - self.rounds[point.name]
        self.rounds[point.name] = number
        if test_accuracy is not None:
            self.accuracies[point.name] = test_accuracy
        if self.bars is not None:
            text = f"accuracy {format_percent(self.accuracies.get(point.name))}"
            self.bars.update(self.tasks[point.name], completed=number, text=text)
            self.bars.update(self.all_rounds, completed=self.rounds_done)

    def say(self, point: Point, sentence: str) -> None:
        """Print a note to standard error."""
        console = self.bars.console if self.bars else Console(stderr=True, highlight=False, soft_wrap=True)
        console.print(f"note: {printable(f'{point.name}: {sentence}')}", markup=False)

    def end(self, point: Point, why: str | None) -> None:
        """Print how the run ended, and about how long the others will take."""
        self.runs_done += 1
        self.rounds_done += point.settings.rounds - self.rounds[point.name]  # none of them is left
        result = f"accuracy {format_percent(self.accuracies.get(point.name))}" if why is None else f"failed: {why}"
        line = f"{self.runs_done}/{self.runs}  {printable(f'{point.name}  {result}')}{self._time_left()}"
        if self.bars is None:
            print(line, flush=True)
            return
        self.bars.remove_task(self.tasks.pop(point.name))
        self.bars.update(self.all_rounds, completed=self.rounds_done)
        self.bars.console.print(line, markup=False)

    def _time_left(self) -> str:
        if self.runs_done == self.runs or not self.rounds_done:
            return ""
        seconds = (time.monotonic() - self.began) * (self.rounds_left - self.rounds_done) / self.rounds_done
        return f"  (about {format_duration(seconds)} left)"
