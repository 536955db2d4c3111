"""`coterie pretrain`: carry out a pre-training, and show it on the terminal."""

from __future__ import annotations

import shlex
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import typer

from coterie.cli.interrupts import handle_interrupts
from coterie.cli.output_forms import JsonLines
from coterie.cli.progress_line import ProgressLine
from coterie.experiment.pretraining_settings import Pretraining, load_pretraining
from coterie.report.formats import format_duration, format_number, format_spread
from coterie.track.rounds_file import Record
from coterie.track.summary import MAX_COLLAPSED_SPREAD

if TYPE_CHECKING:
    from torch import nn

STEP_PAUSE_SECONDS = 5.0


def run_pretraining(
    file: Path, overrides: Sequence[str], out: Path | None, resume: bool, lines: JsonLines | None = None
) -> None:
    """Carry out the pre-training that a file describes, and show it.

    Args:
        file: a TOML file.
        overrides: "table.key=value".
        out: the run folder; None: runs/ with the file's name.
        resume: whether to continue a stopped pre-training.
        lines: prints the records and the summary; None: nothing does.

    Raises:
        Mistake: the file or the folder cannot be used.
    """
    folder = out or Path("runs") / file.stem
    settings = load_pretraining(file, overrides)
    command = shlex.join(["coterie", "pretrain", str(file), *overrides, "--out", str(folder), "--resume"])
    from coterie.experiment.pretraining_run import pretrain

    display = PretrainingDisplay(lines)
    with handle_interrupts(command, "interval"):
        try:
            outcome = pretrain(settings, folder, resume, display)
        finally:
            display.close()
    if not outcome.ran:
        print(f"{folder}: finished already, after {outcome.summary['steps']} steps")
    display.show_summary(outcome.summary)
    print(folder / "model.safetensors")
    print(folder / "report.html")
    if outcome.summary.get("failure"):
        print(f"{folder}: {outcome.summary['failure']}", file=sys.stderr)
        raise typer.Exit(1)


class PretrainingDisplay:
    """Shows a pre-training; it is a `coterie.experiment.pretraining_run.PretrainingWatch`.

    Args:
        lines: also prints each interval's record, and the summary; None: nothing does.
    """

    def __init__(self, lines: JsonLines | None = None) -> None:
        self.lines = lines
        self.progress = ProgressLine("step", STEP_PAUSE_SECONDS)

    def begin(self, settings: Pretraining, model: nn.Module, folder: Path, records: list[Record]) -> None:
        """Print what is trained, then start the progress."""
        steps = settings.pretrain.steps or 0
        parameters = sum(p.numel() for p in model.parameters())
        pairs, size = settings.pretrain.batch_size, settings.pretrain.image_size
        print(
            f"{settings.pretrain.loss} on fractals, {settings.model['name']} with {parameters:,} parameters, "
            f"{steps:,} steps of {pairs} pairs at {size} x {size}, on {settings.device}"
        )
        done = records[-1]["step"] if records else 0
        print(f"continuing after step {done:,} in {folder}" if records else f"writing to {folder}; see sheet.png there")
        self.progress.begin(steps, done)

    def interval(self, record: Record) -> None:
        """Show an interval. Outside a terminal, only one every few seconds and the last are shown."""
        if self.lines is not None:
            self.lines.print(record)
        self.progress.show(record["step"], _progress_text(record))

    def say(self, sentence: str) -> None:
        """Print a note to standard error."""
        self.progress.note(sentence)

    def close(self) -> None:
        """End the progress."""
        self.progress.close()

    def show_summary(self, end: dict[str, Any]) -> None:
        """Print the results as a table, and a note to standard error where the outputs have collapsed."""
        if self.lines is not None:
            self.lines.print(end)
        from rich.table import Table

        table = Table(show_header=False, box=None, pad_edge=False)
        table.add_row("steps", f"{end['steps']:,}")
        table.add_row("images", f"{end['images']:,}")
        table.add_row("loss", format_number(end["loss"]))
        table.add_row("spread of outputs", format_spread(end))
        table.add_row("time", format_duration(end["elapsed"]))
        self.progress.out.print(table)
        if end.get("collapsed"):
            self.say(
                f"the outputs have collapsed (their spread is {end['spread']:.3f}, at most {MAX_COLLAPSED_SPREAD}): "
                "the encoder has learnt nothing; try a smaller pretrain.lr or a larger pretrain.batch_size"
            )


def _progress_text(record: Record) -> str:
    speed = f"{record['images_per_second']:,.0f} images a second"
    return f"loss {format_number(record['loss'])}  spread {format_number(record['spread'])}  {speed}"
