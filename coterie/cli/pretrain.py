"""`coterie pretrain`: what it shows while it goes on, and how it ends."""

from __future__ import annotations

import shlex
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from rich.table import Table
from torch import nn

from coterie.cli.interruptible import interruptible
from coterie.cli.live import Live
from coterie.experiment.pretraining import Pretraining, load
from coterie.experiment.pretraining_run import pretrain as carry_out
from coterie.report.formats import format_duration, format_number, format_spread
from coterie.track.rounds_file import Record
from coterie.track.summary import MAX_COLLAPSED_SPREAD

SECONDS_BETWEEN_LINES = 5.0


def pretrain(file: Path, overrides: Sequence[str], out: Path | None, resume: bool) -> None:
    """Carry out the pre-training that a file describes, and show it."""
    folder = out or Path("runs") / file.stem
    settings = load(file, overrides)
    again = shlex.join(["coterie", "pretrain", str(file), *overrides, "--out", str(folder), "--resume"])
    terminal = Terminal()
    with interruptible(again, "interval"):
        try:
            outcome = carry_out(settings, folder, resume, terminal)
        finally:
            terminal.close()
    if not outcome.ran:
        print(f"{folder}: finished already, after {outcome.summary['steps']} steps")
    terminal.summary(outcome.summary)
    print(folder / "model.safetensors")
    print(folder / "report.html")


class Terminal:
    """Watches a pre-training: a live line in a terminal, plain lines elsewhere."""

    def __init__(self) -> None:
        self.live = Live("step", SECONDS_BETWEEN_LINES)

    def begin(self, settings: Pretraining, model: nn.Module, folder: Path, records: list[Record]) -> None:
        """One line on what is trained; a live line below it if this is a terminal."""
        steps = settings.pretrain.steps or 0
        parameters = sum(p.numel() for p in model.parameters())
        pairs, size = settings.pretrain.batch_size, settings.pretrain.image_size
        print(
            f"{settings.pretrain.loss} on fractals, {settings.model['name']} with {parameters:,} parameters, "
            f"{steps:,} steps of {pairs} pairs at {size} x {size}, on {settings.device}"
        )
        done = records[-1]["step"] if records else 0
        print(f"continuing after step {done:,} in {folder}" if records else f"writing to {folder}; see sheet.png there")
        self.live.begin(steps, done)

    def interval(self, record: Record) -> None:
        """Show an interval: each in a terminal; elsewhere one every few seconds, and the last."""
        self.live.show(record["step"], _told(record))

    def say(self, sentence: str) -> None:
        """A remark, on standard error."""
        self.live.say(sentence)

    def close(self) -> None:
        """Leave the live line as it stands."""
        self.live.close()

    def summary(self, end: dict[str, Any]) -> None:
        """How the training ended, as a table; a collapse is also said on standard error."""
        table = Table(show_header=False, box=None, pad_edge=False)
        table.add_row("steps", f"{end['steps']:,}")
        table.add_row("images", f"{end['images']:,}")
        table.add_row("loss", format_number(end["loss"]))
        table.add_row("spread of outputs", format_spread(end))
        table.add_row("time", format_duration(end["elapsed"]))
        self.live.out.print(table)
        if end["collapsed"]:
            self.say(
                f"the outputs have collapsed (their spread is {end['spread']:.3f}, at most {MAX_COLLAPSED_SPREAD}): "
                "the encoder has learnt nothing; try a smaller pretrain.lr or a larger pretrain.batch_size"
            )


def _told(record: Record) -> str:
    speed = f"{record['images_per_second']:,.0f} images a second"
    return f"loss {format_number(record['loss'])}  spread {record['spread']:.2f}  {speed}"
