"""Carry out a chain of stages in one folder: the last one's run folder, with the earlier ones in stages/.

    OUT/stages/1-fractals/     a folder like that of `coterie pretrain`
    OUT/stages/2-fedssl/       a run folder
    OUT/                       the run folder of the last stage

Each stage is an ordinary run or pre-training that is resumed. One that is finished does nothing, so a killed chain goes
on where it was.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Protocol

from torch import Tensor

from coterie.core.errors import Mistake
from coterie.experiment.build_experiment import build_experiment
from coterie.experiment.build_trainer import build_trainer, resolve_pretraining
from coterie.experiment.folder_jobs import Outcome
from coterie.experiment.mend_folder import is_whole
from coterie.experiment.pretraining_run import PretrainingWatch, pretrain
from coterie.experiment.pretraining_settings import Pretraining
from coterie.experiment.resolve_engine import this_machine
from coterie.experiment.run import run
from coterie.experiment.run_recorder import RunWatch
from coterie.experiment.settings import Settings
from coterie.experiment.stages import Stage, mistakes_in_stage
from coterie.experiment.toml_file import read_toml
from coterie.pretrain.pretrained_weights import load_weights
from coterie.processes.launcher import launcher_size
from coterie.track import RunFolder
from coterie.track.run_folder import STAGES_FOLDER


class StagesWatch(Protocol):
    """An object that is told how a chain goes on."""

    def run_watch(self, stage: Stage) -> RunWatch:
        """Return what watches this stage, which is a run and begins now."""

    def pretraining_watch(self, stage: Stage) -> PretrainingWatch:
        """Return what watches this stage, which is a pre-training and begins now."""

    def end(self, stage: Stage, outcome: Outcome) -> None:
        """A stage is over."""


def run_stages(stages: Sequence[Stage], out: Path, resume: bool, watch: StagesWatch) -> Outcome:
    """Carry out the stages one after another, or go on where they were stopped, and return the last outcome.

    A stage that fails, so that its weights are of no use, is the last.

    Args:
        stages: the chain.
        out: the folder. It must not hold a run or a chain, unless `resume`.
        resume: go on from the last checkpoint of the stage that was stopped; start where there is nothing.
        watch: is told how the chain goes on.

    Raises:
        Mistake: settings cannot be used, two stages do not fit together, or the folder cannot be used. Mistakes of
            settings are found before the first stage begins.
    """
    if launcher_size() is not None:
        raise Mistake("a chain of stages starts its own processes; use --workers N instead of torchrun")
    places = [out / STAGES_FOLDER / stage.folder_name for stage in stages[:-1]] + [out]
    folders = [
        RunFolder(place, "interval" if isinstance(stage.settings, Pretraining) else "round")
        for stage, place in zip(stages, places, strict=True)
    ]
    has_run = [folder.has_run for folder in folders]
    if any(has_run) and not resume:
        raise Mistake(f"{out}: holds a run already; continue it with --resume, or choose another folder with --out")
    _require_same_stages(out, places)
    if not has_run[0]:
        _check_chain(stages)
    outcome = None
    for k, (stage, folder) in enumerate(zip(stages, folders, strict=True)):
        with mistakes_in_stage(stage):
            settings = stage.settings
            if isinstance(settings, Settings):
                settings = settings if k == 0 else _start_from(settings, places[k - 1], folder)
            if any(has_run[k + 1 :]):
                _require_unchanged(settings, folder)
            if isinstance(settings, Pretraining):
                outcome = pretrain(settings, folder.path, folder.has_run, watch.pretraining_watch(stage))
            else:
                outcome = run(settings, folder.path, folder.has_run, watch.run_watch(stage))
        watch.end(stage, outcome)
        if outcome.summary.get("failure"):
            break
    assert outcome is not None, "there is a stage"
    return outcome


def _require_same_stages(out: Path, places: Sequence[Path]) -> None:
    """Refuse a folder of another chain: stages in it that this one does not have."""
    found = {path for path in (out / STAGES_FOLDER).glob("*") if path.is_dir()}
    other = sorted(path.name for path in found - set(places))
    if other:
        raise Mistake(
            f"{out}: holds the stage {other[0]}, which the file does not have; names and order of stages stay as they "
            "were when the run began, so choose another folder with --out"
        )


def _start_from(settings: Settings, before: Path, folder: RunFolder) -> Settings:
    """Return the settings with the weights of the stage before; by their old path where the folders were moved."""
    weights = str(before.resolve())
    if folder.config.is_file():
        earlier = read_toml(folder.config).get("pretrain", {}).get("weights", weights)
        weights = earlier if Path(earlier).parts[-2:] == before.parts[-2:] else weights
    return replace(settings, pretrain=replace(settings.pretrain, weights=weights))


def _require_unchanged(settings: Settings | Pretraining, folder: RunFolder) -> None:
    """Refuse more rounds of a stage whose weights a later stage has taken.

    Raises:
        Mistake: the stage would go on.
    """
    end = folder.read_summary()
    if end is None or not is_whole(folder):
        return  # it was damaged since, and ends with the same weights again
    if isinstance(settings, Settings) and end["stopped"] == "rounds" and end["rounds"] != settings.rounds:
        raise Mistake(
            f"{end['rounds']} are done, and a later stage has begun from these weights; only the last stage's may "
            "change",
            key="rounds",
            value=settings.rounds,
        )


def _check_chain(stages: Sequence[Stage]) -> None:
    """Find every mistake of the stages before the first begins: each is built once, and its weights tried in the next.

    Raises:
        Mistake: there is one.
    """
    weights: dict[str, Tensor] | None = None
    for k, stage in enumerate(stages):
        with mistakes_in_stage(stage):
            _refuse_spent_privacy(stage, stages[:k])
            if isinstance(stage.settings, Pretraining):
                trial = replace(stage.settings, pretrain=replace(stage.settings.pretrain, steps=1))
                weights = build_trainer(resolve_pretraining(trial, this_machine()))[1].encoder_weights()
                continue
            experiment = build_experiment(stage.settings, this_machine())
            if stage is not stages[-1] and (experiment.plan.algorithm.traits.own_models or len(experiment.models) > 1):
                raise Mistake(
                    "each client ends with a model of its own, from which no stage can start; make it the last"
                )
            model = next(iter(experiment.models.values()))
            if weights is not None:
                options = stage.settings.pretrain
                load_weights(
                    model,
                    weights,
                    "the stage before",
                    head=options.head,
                    prefix=options.prefix,
                    skip=options.skip or (),
                )
            weights = dict(model.state_dict())


def _refuse_spent_privacy(stage: Stage, before: Sequence[Stage]) -> None:
    """Refuse a guarantee for a stage that starts from weights which its clients' data have made.

    Raises:
        Mistake: it does.
    """
    settings = stage.settings
    trained = [earlier for earlier in before if isinstance(earlier.settings, Settings)]
    if isinstance(settings, Settings) and settings.privacy.unit != "none" and trained:
        raise Mistake(
            "a stage before it trains on the clients' data, which spends privacy that this stage's account does not "
            "know; let a pre-training on fractals alone come before it",
            key="unit",
            value=settings.privacy.unit,
            table="privacy",
        )
