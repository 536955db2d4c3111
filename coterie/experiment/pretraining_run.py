"""A pre-training from its settings to its report: all that `coterie pretrain` does, except talking to a terminal.

Its folder is like a run's. It has a line for every interval of steps in intervals.jsonl instead of one for every round,
a sheet.png that shows from the start what is trained on, and a model.safetensors that holds the encoder alone.
"""

from __future__ import annotations

import time
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any, Protocol

from torch import nn

from coterie.core import tree
from coterie.core.errors import Mistake
from coterie.experiment.build_trainer import build_trainer, resolve_pretraining
from coterie.experiment.config_toml import current_versions, find_changes
from coterie.experiment.folder_jobs import Outcome, start_or_resume, write_end, write_missing_report
from coterie.experiment.mend_folder import is_whole, mend_folder, require_checkpoint
from coterie.experiment.pretraining_settings import Pretraining, load_pretraining
from coterie.experiment.resolve_engine import this_machine
from coterie.experiment.save_checkpoints import CheckpointSaver
from coterie.experiment.toml_file import read_toml
from coterie.experiment.trust import code_of_file
from coterie.loop.plan import Resume
from coterie.loop.store import Store
from coterie.pretrain.example_sheet import draw_example_sheet
from coterie.track import RunFolder
from coterie.track.file_writing import write_file
from coterie.track.rounds_file import Record
from coterie.track.run_folder import SHEET_FILE
from coterie.track.summary import last_spread
from coterie.track.weights_file import pack_weights


class PretrainingWatch(Protocol):
    """An object that is told how a pre-training goes on."""

    def begin(self, settings: Pretraining, model: nn.Module, folder: Path, records: list[Record]) -> None:
        """Everything is ready; these intervals were run before."""

    def interval(self, record: Record) -> None:
        """An interval is complete and on record."""

    def say(self, sentence: str) -> None:
        """Something that the user should know; the training goes on."""


class SilentPretraining:
    """A watch that does nothing."""

    def begin(self, settings: Pretraining, model: nn.Module, folder: Path, records: list[Record]) -> None:
        """Do nothing."""

    def interval(self, record: Record) -> None:
        """Do nothing."""

    def say(self, sentence: str) -> None:
        """Do nothing."""


def pretrain(settings: Pretraining, out: Path, resume: bool = False, watch: PretrainingWatch | None = None) -> Outcome:
    """Pre-train into the folder `out`, or continue what was stopped there.

    Args:
        settings: what to train.
        out: the folder. It must not hold a run, unless `resume`.
        resume: continue from the last checkpoint; start where the folder holds no run; do nothing where the training is
            finished. The settings must be those it began with.
        watch: is told how the training goes on.

    Raises:
        Mistake: the settings cannot be used, or the folder cannot. In the first case nothing is written.
    """
    folder, watch = RunFolder(out, "interval"), watch or SilentPretraining()

    def prepare() -> _TrainingJob:
        return _TrainingJob(resolve_pretraining(settings, this_machine()), folder, watch)

    def prepare_rest() -> _TrainingJob | None:
        mend_folder(folder, watch.say)
        adopted = _adopt_settings(settings, folder)
        if folder.read_summary() is not None and is_whole(folder):
            write_missing_report(folder)
            return None
        require_checkpoint(folder)
        return _TrainingJob(adopted, folder, watch)

    return start_or_resume(folder, resume, prepare, prepare_rest)


def _adopt_settings(settings: Pretraining, folder: RunFolder) -> Pretraining:
    """Return the settings with what they leave open as the run in the folder has it.

    Raises:
        Mistake: they differ from those of the run.
    """
    with code_of_file(folder.path, settings.tables()):
        earlier = load_pretraining(folder.config)
    left_open = {name: getattr(earlier.pretrain, name) for name, v in asdict(settings.pretrain).items() if v is None}
    device = earlier.device if settings.device == "auto" else settings.device
    settings = replace(settings, pretrain=replace(settings.pretrain, **left_open), device=device)
    changed = find_changes(settings, earlier)
    if changed:
        raise Mistake(f"{', '.join(changed)}: changed since the run in {folder.path} began; start another with --out")
    return settings


@dataclass
class _TrainingJob:
    """A pre-training that is ready to go on."""

    settings: Pretraining
    folder: RunFolder
    watch: PretrainingWatch
    records: list[Record] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.model, self.trainer = build_trainer(self.settings)
        self.saver = CheckpointSaver(self.folder)

    def carry_out(self) -> dict[str, Any]:
        """Train from the last checkpoint to the end."""
        before = self.begin()
        self.watch.begin(self.settings, self.model, self.folder.path, list(self.records))
        began = time.perf_counter()
        with self.saver.save_on_interrupt():
            while self.trainer.step < self.steps:
                record = self.train_interval()
                self.append(record, before + time.perf_counter() - began)
                if not self.is_finite():
                    break  # no later step would mend it
            self.saver.save()
        return self.write_end()

    def is_finite(self) -> bool:
        """Return whether all weights of the encoder are finite."""
        return tree.is_finite(self.trainer.encoder_weights())

    @property
    def steps(self) -> int:
        """How many steps there are."""
        assert self.settings.pretrain.steps is not None, "the settings are resolved"
        return self.settings.pretrain.steps

    def begin(self) -> float:
        """Go to the last checkpoint, write config and example sheet, and return the seconds until then."""
        found = self.saver.load()
        for sentence in self.saver.warnings():
            self.watch.say(sentence)
        self.records = self.folder.rounds.cut(self.saver.saved)
        self.folder.reopen()
        if found is not None:
            self.trainer.restore(min(found.round * self.settings.pretrain.interval, self.steps), found.state)
        now = current_versions(this_machine())
        began = read_toml(self.folder.config).get("versions", now) if self.folder.config.is_file() else now
        self.folder.write_config(self.settings.format_config(began))
        write_file(
            self.folder.path / SHEET_FILE, draw_example_sheet(self.settings.pretrain.sizes, self.settings.rng_seed)
        )
        self.folder.seal(over=False)
        return found.elapsed if found else 0.0

    def train_interval(self) -> Record:
        """Take the steps of the next interval, and return its record."""
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

    def append(self, record: Record, elapsed: float) -> None:
        """Put an interval on record, and save a checkpoint if one is due."""
        self.saver.raise_failure()
        self.records.append(self.folder.rounds.append({**record, "elapsed": elapsed}))
        self.saver.newest = Resume(record["interval"], self.trainer.state(), Store(), elapsed)
        if self.saver.due:
            self.saver.save()
        self.watch.interval(self.records[-1])

    def write_end(self) -> dict[str, Any]:
        """Write what a finished training leaves, and return its summary."""
        self.folder.write_weights(pack_weights(self.model, self.trainer.encoder_weights(), part=True))
        last = self.records[-1]
        summary = {
            "steps": last["step"],
            "images": 2 * self.settings.pretrain.batch_size * last["step"],
            "seconds": sum(record["seconds"] for record in self.records),
            "elapsed": last["elapsed"],
            "loss": last["loss"],
            **last_spread(self.records),
        }
        if not self.is_finite():
            summary["failure"] = (
                f"the encoder's weights are not finite after step {last['step']}, so they are of no use: choose a "
                "smaller pretrain.lr and start again in another folder"
            )
        write_end(self.folder, summary)
        return summary

    def withdraw(self) -> None:
        (self.folder.path / SHEET_FILE).unlink(missing_ok=True)
        self.folder.withdraw()
