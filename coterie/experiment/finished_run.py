"""Load finished runs for probes: their weights before and after, and their data and model, made again."""

from __future__ import annotations

import copy
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Literal

import safetensors.torch
import torch
from safetensors import SafetensorError
from torch import nn

from coterie.core import tree
from coterie.core.errors import Mistake
from coterie.core.tree import Tree
from coterie.experiment.adapters import has_adapters
from coterie.experiment.build_experiment import Experiment, build_experiment
from coterie.experiment.config_toml import find_changes
from coterie.experiment.resolve_engine import this_machine
from coterie.experiment.settings import load_settings
from coterie.experiment.trust import code_of_folder
from coterie.models.adapter_files import read_adapter
from coterie.models.batchnorm_statistics import recalibration
from coterie.models.functional import initial_weights, make_task
from coterie.models.lora import find_adapters, merge_adapters, merge_values
from coterie.probes import Surface, draw_subset
from coterie.report.run_reader import is_pretraining
from coterie.track import RunFolder
from coterie.track.checksums import SUMMARY_FILE, check_files, note_unchecked
from coterie.track.run_folder import CONFIG_FILE, weights_file

WEIGHTS_FILE = weights_file()
Statistics = Literal["measured", "averaged"]
On = Literal["test", "train"]


@dataclass(frozen=True)
class FinishedRun:
    """A run that is finished.

    Attributes:
        experiment: built again from its config.toml.
        start, end: {"params", "buffers"} of the model at the start and at the end.
    """

    folder: Path
    experiment: Experiment
    start: Tree
    end: Tree


def load_finished_run(folder: Path, trust: bool = False) -> FinishedRun:
    """Load the run in a folder.

    Args:
        folder: where it is.
        trust: whether code that the folder names may be run, see `coterie.experiment.trained_model.load_trained_model`.

    Raises:
        Mistake: it is not a run folder, is not finished, has a model for each client, names code that is not trusted,
            or its data cannot be had.
    """
    with code_of_folder(folder, trust):
        return _load_run(folder)


def _load_run(folder: Path) -> FinishedRun:
    if is_pretraining(folder):
        raise Mistake(f"{folder}: is a pre-training; give the folder of a run")
    check_files(folder, [CONFIG_FILE, SUMMARY_FILE, WEIGHTS_FILE])
    note_unchecked(folder)
    settings = load_settings(folder / CONFIG_FILE)
    machine = this_machine()
    here = settings.engine.device if settings.engine.device == machine.device else "auto"  # it may come from elsewhere
    plain = replace(settings.engine, name="sequential", device=here, chunk=None, compile=False, workers=1)
    experiment = build_experiment(replace(settings, engine=plain, probe={}), machine, RunFolder(folder).start)
    if len(experiment.models) > 1 or experiment.plan.algorithm.traits.own_models:
        raise Mistake(f"{folder}: each of its clients has a model of its own; give a run that ends with one for all")
    (start,) = experiment.plan.initial.values()
    return FinishedRun(folder, experiment, start, _load_end(folder, start, is_adapted=has_adapters(settings)))


def _load_end(folder: Path, like: Tree, is_adapted: bool) -> Tree:
    """Load the weights that a run ended with into a tree like the model's own, whose adapters are not merged."""
    path = folder / WEIGHTS_FILE
    try:
        flat = safetensors.torch.load_file(path)
        flat |= read_adapter(RunFolder(folder).adapter).values if is_adapted else {}
        return {
            kind: {name: flat[name].reshape(leaf.shape).to(leaf.device, leaf.dtype) for name, leaf in leaves.items()}
            for kind, leaves in like.items()
        }
    except FileNotFoundError as error:
        raise Mistake(
            f"{path.parent}: has no {path.name}, so the run is not finished; continue it with --resume"
        ) from error
    except (OSError, SafetensorError, KeyError, RuntimeError) as error:
        raise Mistake(f"{path}: is not the model that its config.toml describes ({error})") from error


def load_comparable_runs(folders: Sequence[Path], trust: bool = False) -> list[FinishedRun]:
    """Load runs whose models can be combined; the arguments are those of `load_finished_run`, for several folders.

    Adapters are merged: between factors of two runs there is no model that lies between the runs' models.

    Raises:
        Mistake: as `load_finished_run`; or their models, data sets, or what is frozen in the models differ.
    """
    runs = [_merge_run(load_finished_run(folder, trust)) for folder in folders]
    first = runs[0]
    for run in runs[1:]:
        keys = find_changes(run.experiment.settings, first.experiment.settings)
        apart = [key for key in keys if key.startswith("model.") or key == "data.source"]
        if apart:
            raise Mistake(
                f"{run.folder}: {', '.join(apart)} differs from {first.folder}; models on a line or a plane must be of "
                "one architecture and one data set"
            )
        if not _same_values(_take_frozen(run), _take_frozen(first)):
            raise Mistake(
                f"{run.folder}: what is frozen in its model differs from {first.folder}; models on a line or a plane "
                "must start from the same weights where they are frozen"
            )
    return runs


def _take_frozen(run: FinishedRun) -> Tree:
    (task,) = run.experiment.plan.tasks.values()
    return dict(task.frozen)


def _same_values(a: Tree, b: Tree) -> bool:
    return a.keys() == b.keys() and all(torch.equal(a[name], b[name]) for name in a)


def _merge_run(run: FinishedRun) -> FinishedRun:
    """Return the run of the model without adapters: the weights of layers that had one are among those that move."""
    ((name, adapted),) = run.experiment.models.items()
    layers = find_adapters(adapted)
    if not layers:
        return run
    model = merge_adapters(copy.deepcopy(adapted))
    for layer in layers:
        model.get_submodule(layer).weight.requires_grad_(True)
    plan = run.experiment.plan
    old = plan.tasks[name]
    on_engine = copy.deepcopy(model).to(plan.engine.device, plan.engine.dtype)
    task = make_task(on_engine, loss=old.loss, metrics=old.metrics, num_classes=old.num_classes)
    like = initial_weights(on_engine)
    start, end = (
        _merge_weights(adapted, {**old.frozen, **w["params"], **w["buffers"]}, like) for w in (run.start, run.end)
    )
    plan = replace(plan, tasks=plan.engine.prepare({name: task}), initial={name: start})
    return replace(run, experiment=replace(run.experiment, models={name: model}, plan=plan), start=start, end=end)


def _merge_weights(adapted: nn.Module, flat: Tree, like: Tree) -> Tree:
    merged = merge_values(adapted, flat)
    return {kind: {name: merged[name] for name in leaves} for kind, leaves in like.items()}


def loss_surface(run: FinishedRun, on: On, examples: int, statistics: Statistics) -> Surface:
    """Return the loss of a run's model, as a function of the weights, on some of its test or training examples.

    Args:
        run: gives the data and the model.
        on: "test" or "train".
        examples: how many, drawn by the rng seed.
        statistics: BatchNorm's are "measured" on that many training examples wherever the loss is measured, or taken
            unchanged, which between models is "averaged".

    Raises:
        Mistake: the source has no test examples.
    """
    source, plan = run.experiment.source, run.experiment.plan
    chosen = source.train if on == "train" else source.test
    if chosen is None:
        raise Mistake(f"--on test: the source {source.name} has no test examples; choose --on train")
    (task,), (model,) = plan.tasks.values(), run.experiment.models.values()
    training = draw_subset(source.train, examples, plan.rng_seed)
    measure = recalibration(model, training, plan.engine) if statistics == "measured" and task.batch_norms else None
    return Surface(task, plan.engine, draw_subset(chosen, examples, plan.rng_seed), measure)


def have_same_start(runs: Sequence[FinishedRun]) -> bool:
    """Return whether the runs started from the same weights, bit for bit."""
    leaves = [tree.leaves(run.start) for run in runs]
    return all(bool((a == b).all()) for other in leaves[1:] for a, b in zip(leaves[0], other, strict=True))
