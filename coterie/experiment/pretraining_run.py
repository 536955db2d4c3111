"""A pre-training from its settings to its report: the whole of what `coterie pretrain` does, but for talking to a
terminal.

Its folder is a run's, with a line for every interval of steps in intervals.jsonl instead of one for every round, a
sheet.png that shows what is trained on, there from the start, and a model.safetensors that holds the encoder alone.
"""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any, Protocol

from torch import nn

from coterie.core.errors import Mistake
from coterie.experiment import file, pretraining
from coterie.experiment.engine import this_machine
from coterie.experiment.pretraining import Pretraining
from coterie.experiment.resolved import difference, versions
from coterie.experiment.run import Outcome
from coterie.experiment.saving import Saving
from coterie.loop.plan import Resume
from coterie.loop.store import Store
from coterie.pretrain.example_sheet import draw_example_sheet
from coterie.report import write_report
from coterie.track import RunFolder
from coterie.track.file_writing import disk_mistakes, write_file
from coterie.track.rounds_file import Record
from coterie.track.summary import last_spread
from coterie.track.weights_file import pack_weights

SHEET = "sheet.png"


class Watch(Protocol):
    """Whoever looks on while a pre-training goes on."""

    def begin(self, settings: Pretraining, model: nn.Module, folder: Path, records: list[Record]) -> None:
        """Everything is ready, and these intervals were there before."""

    def interval(self, record: Record) -> None:
        """An interval is complete and on record."""

    def say(self, sentence: str) -> None:
        """Something that the user should know, but that stops nothing."""


class Silent:
    """A watch that says nothing."""

    def begin(self, settings: Pretraining, model: nn.Module, folder: Path, records: list[Record]) -> None:
        """Nothing."""

    def interval(self, record: Record) -> None:
        """Nothing."""

    def say(self, sentence: str) -> None:
        """Nothing."""


def pretrain(settings: Pretraining, out: Path, resume: bool = False, watch: Watch | None = None) -> Outcome:
    """Pre-train into the folder `out`, or continue what was stopped there.

    Args:
        settings: what to train.
        out: the folder. It must hold no run yet, unless `resume`.
        resume: continue from the last checkpoint; start where there is nothing yet; do nothing where the training is
            over. The settings must be those it began with.
        watch: told of what happens.

    Raises:
        Mistake: the settings cannot be used, or the folder cannot. In the first case nothing is written.
    """
    folder, watch = RunFolder(out, "interval"), watch or Silent()
    if not folder.has_run:
        settings = pretraining.resolved(settings, this_machine())
        with folder.hold():
            if folder.has_run:
                raise _already(folder)
            going = _Training(settings, folder, watch)
            try:
                return going.carried_out()
            except Mistake:
                if not going.records:
                    (out / SHEET).unlink(missing_ok=True)
                    folder.withdraw()
                raise
    if not resume:
        raise _already(folder)
    with folder.hold():
        settings = _as_before(settings, folder)
        end = folder.read_summary()
        if end is not None:
            return Outcome(out, end, ran=False)
        return _Training(settings, folder, watch).carried_out()


def _already(folder: RunFolder) -> Mistake:
    return Mistake(
        f"{folder.path}: holds a run already; continue it with --resume, or choose another folder with --out"
    )


def _as_before(settings: Pretraining, folder: RunFolder) -> Pretraining:
    """The settings with what they leave open as the run in the folder resolved it.

    Raises:
        Mistake: they differ from those of the run.
    """
    earlier = pretraining.load(folder.config)
    left_open = {name: getattr(earlier.pretrain, name) for name, v in asdict(settings.pretrain).items() if v is None}
    device = earlier.device if settings.device == "auto" else settings.device
    settings = replace(settings, pretrain=replace(settings.pretrain, **left_open), device=device)
    changed = difference(settings, earlier)
    if changed:
        raise Mistake(f"{', '.join(changed)}: changed since the run in {folder.path} began; start another with --out")
    return settings


@dataclass
class _Training:
    """A pre-training that goes on: where it stands, and what of it the disk holds."""

    settings: Pretraining
    folder: RunFolder
    watch: Watch
    records: list[Record] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.model, self.trainer = pretraining.build(self.settings)
        self.saving = Saving(self.folder)

    def carried_out(self) -> Outcome:
        """From where it stands to its end."""
        before = self.begin()
        self.watch.begin(self.settings, self.model, self.folder.path, list(self.records))
        began = time.perf_counter()
        with self.saved_on_interrupt():
            while self.trainer.step < self.steps:
                record = self.interval()
                self.take(record, before + time.perf_counter() - began)
            self.saving.save()
        return Outcome(self.folder.path, self.end(), ran=True)

    @property
    def steps(self) -> int:
        """How many there are."""
        assert self.settings.pretrain.steps is not None, "the settings are resolved"
        return self.settings.pretrain.steps

    def begin(self) -> float:
        """Bring the folder and the trainer to the last checkpoint; the seconds until then."""
        found = self.saving.load(self.watch.say)
        self.records = self.folder.rounds.cut(self.saving.saved)
        if found is not None:
            self.trainer.restore(min(found.round * self.settings.pretrain.interval, self.steps), found.state)
        now = versions(this_machine())
        began = file.read(self.folder.config).get("versions", now) if self.folder.config.is_file() else now
        self.folder.write_config(self.settings.text(began))
        write_file(self.folder.path / SHEET, draw_example_sheet(self.settings.pretrain.sizes, self.settings.rng_seed))
        return found.elapsed if found else 0.0

    def interval(self) -> Record:
        """The next steps, as a record."""
        began, lr, first = time.perf_counter(), self.trainer.lr(), self.trainer.step
        logs = [self.trainer.advance() for _ in range(min(self.settings.pretrain.interval, self.steps - first))]
        totals = {name: sum(float(log[name]) for log in logs) for name in logs[0]}
        seconds, count = time.perf_counter() - began, totals.pop("count")
        return {
            "interval": len(self.records) + 1,
            "step": self.trainer.step,
            **{name: total / count for name, total in totals.items()},
            "lr": lr,
            "images_per_second": 2 * count / seconds,
            "seconds": seconds,
        }

    def take(self, record: Record, elapsed: float) -> None:
        """Put an interval on record, and save a checkpoint if one is due."""
        self.records.append(self.folder.rounds.append({**record, "elapsed": elapsed}))
        self.saving.last = Resume(record["interval"], self.trainer.state(), Store(), elapsed)
        if self.saving.due:
            self.saving.save()
        self.watch.interval(self.records[-1])

    @contextmanager
    def saved_on_interrupt(self) -> Iterator[None]:
        """A block after whose interruption (Ctrl-C) no complete interval is lost."""
        try:
            yield
        except KeyboardInterrupt:
            self.saving.save()
            raise

    def end(self) -> dict[str, Any]:
        """Write what a finished training leaves, the summary last but for the report."""
        self.folder.write_weights(pack_weights(self.model, self.trainer.encoder_weights(), part=True))
        last = self.records[-1]
        end = {
            "steps": last["step"],
            "images": 2 * self.settings.pretrain.batch_size * last["step"],
            "seconds": sum(record["seconds"] for record in self.records),
            "elapsed": last["elapsed"],
            "loss": last["loss"],
            **last_spread(self.records),
        }
        self.folder.write_summary(end)
        with disk_mistakes(self.folder.path / "report.html"):
            write_report(self.folder.path)
        return end
