"""`coterie run` on a chain of stages: carry it out, and show each stage as the command for it alone does."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from contextlib import ExitStack
from pathlib import Path

import typer

from coterie.cli.output_forms import JsonLines
from coterie.cli.pretrain_command import PretrainingDisplay
from coterie.cli.run_display import RunDisplay, show_logs
from coterie.experiment.folder_jobs import Outcome
from coterie.experiment.staged_run import run_stages
from coterie.experiment.stages import Stage


def run_chain(stages: Sequence[Stage], folder: Path, resume: bool, lines: JsonLines | None = None) -> None:
    """Carry out a chain, and show it.

    Args:
        stages: from `coterie.experiment.stages.load_stages`.
        folder: the folder of the chain.
        resume: whether to continue a stopped chain.
        lines: prints the records and the summaries of all stages; None: nothing does.

    Raises:
        Mistake: a stage or the folder cannot be used.
    """
    with ChainDisplay(len(stages), lines) as display:
        outcome = run_stages(stages, folder, resume, display)
    print(folder / "report.html" if outcome.folder == folder else outcome.folder / "report.html")
    if outcome.summary.get("failure"):
        print(f"{outcome.folder}: {outcome.summary['failure']}", file=sys.stderr)
        raise typer.Exit(1)


class ChainDisplay:
    """Shows a chain; it is a `coterie.experiment.staged_run.StagesWatch`."""

    def __init__(self, total: int, lines: JsonLines | None = None) -> None:
        self.total, self.lines = total, lines
        self._shown: RunDisplay | PretrainingDisplay | None = None
        self._open = ExitStack()

    def __enter__(self) -> ChainDisplay:
        return self

    def __exit__(self, *error: object) -> None:
        self._open.close()

    def run_watch(self, stage: Stage) -> RunDisplay:
        """Say which stage begins, and return its display."""
        self._say(stage)
        display = RunDisplay(self.lines)
        self._open.enter_context(show_logs(display))
        self._shown = display
        return display

    def pretraining_watch(self, stage: Stage) -> PretrainingDisplay:
        """Say which stage begins, and return its display."""
        self._say(stage)
        display = PretrainingDisplay(self.lines)
        self._open.callback(display.close)
        self._shown = display
        return display

    def _say(self, stage: Stage) -> None:
        print(f"stage {stage.number} of {self.total}: {stage.name}")

    def end(self, stage: Stage, outcome: Outcome) -> None:
        """Show the results of a stage that was carried out now."""
        self._open.close()
        assert self._shown is not None, "a stage begins before it ends"
        if outcome.ran:
            self._shown.show_summary(outcome.summary)
        else:
            print(f"{outcome.folder}: finished already")
            if self.lines is not None:
                self.lines.print(outcome.summary)
