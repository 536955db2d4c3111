"""Finished runs as probes need them: their models before and after, and the data and the network rebuilt."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Literal

import safetensors.torch
from safetensors import SafetensorError

from coterie.core import tree
from coterie.core.errors import Mistake
from coterie.core.tree import Tree
from coterie.experiment import resolved
from coterie.experiment.build import Experiment, build
from coterie.experiment.engine import this_machine
from coterie.experiment.settings import load
from coterie.models.batchnorm_statistics import recalibration
from coterie.probes import Surface, draw_subset
from coterie.report.run_reader import is_pretraining
from coterie.track import RunFolder

Statistics = Literal["measured", "averaged"]
On = Literal["test", "train"]


@dataclass(frozen=True)
class Finished:
    """A run that is over.

    Attributes:
        experiment: rebuilt from its config.toml.
        start, end: {"params", "buffers"} of the model that it began with and of the one that it ended with.
    """

    folder: Path
    experiment: Experiment
    start: Tree
    end: Tree


def finished(folder: Path) -> Finished:
    """The run in a folder.

    Raises:
        Mistake: it is no run folder, is not finished, has a model for each client, or its data cannot be had.
    """
    if is_pretraining(folder):
        raise Mistake(f"{folder}: is a pre-training; give the folder of a run")
    settings = load(folder / "config.toml")
    machine = this_machine()
    here = settings.engine.device if settings.engine.device == machine.device else "auto"  # it may come from elsewhere
    plain = replace(settings.engine, name="sequential", device=here, chunk=None, compile=False, workers=1)
    experiment = build(replace(settings, engine=plain, probe={}), machine, RunFolder(folder).start)
    if len(experiment.models) > 1 or experiment.plan.algorithm.traits.own_models:
        raise Mistake(f"{folder}: each of its clients has a model of its own; give a run that ends with one for all")
    (start,) = experiment.plan.initial.values()
    return Finished(folder, experiment, start, _saved(folder / "model.safetensors", start))


def _saved(path: Path, like: Tree) -> Tree:
    """The weights in a file, as the model's own are arranged."""
    try:
        flat = safetensors.torch.load_file(path)
        return {
            kind: {name: flat[name].reshape(leaf.shape).to(leaf.device, leaf.dtype) for name, leaf in leaves.items()}
            for kind, leaves in like.items()
        }
    except FileNotFoundError as error:
        raise Mistake(f"{path.parent}: has no {path.name}, so it is not finished; continue it with --resume") from error
    except (OSError, SafetensorError, KeyError, RuntimeError) as error:
        raise Mistake(f"{path}: is not the model that its config.toml describes ({error})") from error


def together(folders: Sequence[Path]) -> list[Finished]:
    """Runs whose models can be combined.

    Raises:
        Mistake: as `finished`; or their models or data sets differ.
    """
    runs = [finished(folder) for folder in folders]
    first = runs[0]
    for run in runs[1:]:
        keys = resolved.difference(run.experiment.settings, first.experiment.settings)
        apart = [key for key in keys if key.startswith("model.") or key == "data.source"]
        if apart:
            raise Mistake(
                f"{run.folder}: {', '.join(apart)} differs from {first.folder}; models on a line or a plane must be of "
                "one architecture and one data set"
            )
    return runs


def surface(run: Finished, on: On, examples: int, statistics: Statistics) -> Surface:
    """The loss of a run's model on some of its test or training examples.

    Args:
        run: whose data and network are taken.
        on: "test" or "train".
        examples: so many, drawn by the rng seed.
        statistics: BatchNorm's are "measured" on as many training examples wherever the loss is, or taken as they
            stand, which between models is "averaged".

    Raises:
        Mistake: the source has no test examples.
    """
    source, plan = run.experiment.source, run.experiment.plan
    chosen = source.train if on == "train" else source.test
    if chosen is None:
        raise Mistake(f"--on test: the source {source.name} has no test examples; choose --on train")
    (task,), (model,) = plan.tasks.values(), run.experiment.models.values()
    seen = draw_subset(source.train, examples, plan.rng_seed)
    measure = recalibration(model, seen, plan.engine) if statistics == "measured" and task.batch_norms else None
    return Surface(task, plan.engine, draw_subset(chosen, examples, plan.rng_seed), measure)


def same_start(runs: Sequence[Finished]) -> bool:
    """Whether the runs began with the same weights, bit for bit."""
    leaves = [tree.leaves(run.start) for run in runs]
    return all(bool((a == b).all()) for other in leaves[1:] for a, b in zip(leaves[0], other, strict=True))
