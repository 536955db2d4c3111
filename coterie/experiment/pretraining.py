"""A pre-training's settings: what its TOML file and the overrides say, checked, with every default filled in.

rng_seed = 0
[pretrain]  what is trained and for how long: the keys of `coterie.pretrain.fps.FPS`, and method = "fps"
[model]     as in an experiment; a classifier is made with it, and left out
[engine]    device
"""

from __future__ import annotations

import statistics
import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any, Literal

import tomlkit
import torch
from torch import nn

from coterie.core.errors import Mistake, mistakes_in, reason
from coterie.experiment.engine import Machine, device_called
from coterie.experiment.file import Raw, overridden, read
from coterie.experiment.keys import Key, Keys, keys_of
from coterie.experiment.model import made
from coterie.experiment.refuse import checked, full
from coterie.experiment.settings import IGNORED, checkpoints, folders_of, one_of, top_level, without_leftovers
from coterie.experiment.tables import TOP, model_keys
from coterie.pretrain.fps import FPS, Trainer

TABLES = ("pretrain", "model", "engine")
METHODS = Literal["fps"]
CLASSES = 10
"""Of the classifier that a model is made with."""
FIRST_STEPS, FIRST_SECONDS = 4, 2.0
"""The first so many steps, and so many seconds, are timed to find how many steps a number of minutes holds."""


@dataclass(frozen=True)
class Pretraining:
    """What is to be trained.

    Attributes:
        pretrain: how.
        model: the table of that name. A key with the value None was left out and has no default.
        device: where; "auto" until it is resolved.
        folders: where functions of the user's own are looked for.
    """

    rng_seed: int
    pretrain: FPS
    model: dict[str, Any]
    device: str
    folders: tuple[Path, ...]

    def tables(self) -> dict[str, Any]:
        """The settings as nested dicts, in the order of a file; what was left out and has no default is left out."""
        given = {name: value for name, value in asdict(self.pretrain).items() if value is not None}
        model = {name: value for name, value in self.model.items() if value is not None}
        return {
            "rng_seed": self.rng_seed,
            "pretrain": {"method": "fps", **given},
            "model": model,
            "engine": {"device": self.device},
        }

    def text(self, versions: dict[str, str]) -> str:
        """The content of config.toml."""
        document = self.tables()
        if ":" in self.model["name"]:
            document["origin"] = {"folders": [str(folder) for folder in self.folders]}
        about = (
            "# Every setting of this pre-training, defaults included. `coterie pretrain` on this file runs it again.\n"
        )
        return about + tomlkit.dumps(document | {"versions": versions})


def load(path: Path, overrides: Sequence[str] = ()) -> Pretraining:
    """The settings in a TOML file, with overrides such as `pretrain.steps=100` put in; minutes and steps replace one
    another.

    Raises:
        Mistake: a key or value cannot be used, or the file is that of an experiment.
    """
    written = read(path)
    raw, changed = overridden(written, overrides)
    if {"data", "algorithm"} & raw.keys():
        raise Mistake(f"{path}: is an experiment, and no pre-training; `coterie run` runs it")
    folders = folders_of(path, raw)
    one_of(raw, changed, "pretrain", "minutes", "steps")
    return parse(without_leftovers(written, raw, changed, folders, {"model": _model_keys}), folders)


def parse(raw: Raw, folders: Sequence[Path]) -> Pretraining:
    """The settings in the content of a file.

    Raises:
        Mistake: a key or value cannot be used.
    """
    top = Keys(rng_seed=TOP["rng_seed"])
    top_level(raw, TABLES, top)
    known = {
        "pretrain": Keys(method=Key(METHODS, "fps")).and_those_of(keys_of(FPS)),
        "model": _model_keys(raw.get("model", {}), folders),
        "engine": Keys(device=Key(str, "auto")),
    }
    elsewhere = {key: full(name, key) for name, keys in known.items() for key in keys}
    first = checked("", {k: v for k, v in raw.items() if k not in (*TABLES, *IGNORED, "origin")}, top, elsewhere)
    values = {name: checked(name, raw.get(name, {}), keys, elsewhere) for name, keys in known.items()}
    del values["pretrain"]["method"]
    values["model"]["name"] = checkpoints(values["model"]["name"], folders)
    with mistakes_in("pretrain"):
        settings = FPS(**values["pretrain"])
    return Pretraining(first["rng_seed"], settings, values["model"], values["engine"]["device"], tuple(folders))


def _model_keys(raw: Raw, folders: Sequence[Path]) -> Keys:
    if "name" not in raw:
        raise Mistake("model.name is missing; a pre-training trains one model, which it names")
    return model_keys(raw, folders)


def build(settings: Pretraining) -> tuple[nn.Module, Trainer]:
    """The model as its author wrote it, and its training before the first step.

    Raises:
        Mistake: the model cannot be made, does not fit the images, or has nothing to train but a classifier.
    """
    size, given = settings.pretrain.image_size, settings.model
    shape = [settings.pretrain.channels, size, size]
    model = made(given, given["name"], shape, CLASSES, settings.rng_seed, settings.folders)
    with mistakes_in("pretrain"):
        trainer = Trainer(settings.pretrain, model, settings.rng_seed, device_called(settings.device))
    try:
        trainer.check_images(torch.zeros(2, *shape))
    except (RuntimeError, ValueError, IndexError, TypeError, NotImplementedError) as error:
        if isinstance(error, Mistake):
            raise
        why = reason(error)
        raise Mistake(
            f'model.name = "{given["name"]}": the model cannot take images of shape {shape} ({why}); choose another'
        ) from error
    return model, trainer


def resolved(settings: Pretraining, machine: Machine) -> Pretraining:
    """The settings with nothing left open: a device, a number of steps, and what follows from the image size.

    Where only minutes are given, the first steps are taken and timed, once, before the training begins. From then on
    the number of steps is a setting like any other: no time is looked at again, and the run can be repeated.

    Raises:
        Mistake: as `build`.
    """
    device = machine.device if settings.device == "auto" else settings.device
    settings = replace(settings, device=device, pretrain=settings.pretrain.resolve())
    if settings.pretrain.steps is not None:
        build(settings)  # whose mistakes must be found before anything is written
        return settings
    assert settings.pretrain.minutes is not None, "one of the two was asked for"
    _, trainer = build(replace(settings, pretrain=replace(settings.pretrain, steps=1)))
    steps = max(1, round(60 * settings.pretrain.minutes / _seconds(trainer)))
    return replace(settings, pretrain=replace(settings.pretrain, steps=steps))


def _seconds(trainer: Trainer) -> float:
    """What a step takes: the middle one of the first, but for the very first."""
    taken: list[float] = []
    while len(taken) < FIRST_STEPS or sum(taken) < FIRST_SECONDS:
        began = time.perf_counter()
        float(trainer.advance()["loss"])  # which waits for a device
        taken.append(time.perf_counter() - began)
    return statistics.median(taken[1:])
