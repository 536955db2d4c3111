"""A pre-training's settings: the content of its TOML file with overrides, checked, with every default filled in.

rng_seed = 0
[pretrain]  what is trained and for how long: the keys of `coterie.pretrain.fps.FPS`, and method = "fps"
[model]     as in an experiment; it is made with a classifier, which is left out
[engine]    device, compile
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
from coterie.experiment.check_values import check_table, full_name
from coterie.experiment.engine_choice import Machine
from coterie.experiment.keys import Key, Keys
from coterie.experiment.make_model import make_model
from coterie.experiment.read_keys import read_keys
from coterie.experiment.resolve_engine import find_device
from coterie.experiment.settings import (
    IGNORED,
    check_top_level,
    find_checkpoints,
    keep_overridden,
    remove_leftovers,
    search_folders,
)
from coterie.experiment.tables import ADAPTER, ADAPTER_OPTIONS, TOP, model_keys
from coterie.experiment.toml_file import Raw, apply_overrides, read_toml
from coterie.pretrain.fps import FPS, Trainer

PRETRAINING_TABLES = ("pretrain", "model", "engine")
METHODS = Literal["fps"]
CLASSIFIER_CLASSES = 10
"""Classes of the classifier that a model is made with."""
MIN_TIMED_STEPS, MIN_TIMED_SECONDS = 4, 2.0
"""This many steps and this many seconds are timed, to find how many steps a number of minutes holds."""


@dataclass(frozen=True)
class Pretraining:
    """What is to be trained.

    Attributes:
        pretrain: how.
        model: the table of that name. A key with the value None was left out and has no default.
        device: where; "auto" until it is resolved.
        compile: whether steps are compiled.
        folders: where functions of the user's own are looked for.
    """

    rng_seed: int
    pretrain: FPS
    model: dict[str, Any]
    device: str
    folders: tuple[Path, ...]
    compile: bool = False

    def tables(self) -> dict[str, Any]:
        """Return the settings as nested dicts, in the order of a file, without keys that have no value."""
        given = {name: value for name, value in asdict(self.pretrain).items() if value is not None}
        model = {name: value for name, value in self.model.items() if value is not None}
        return {
            "rng_seed": self.rng_seed,
            "pretrain": {"method": "fps", **given},
            "model": model,
            "engine": {"device": self.device} | ({"compile": True} if self.compile else {}),
        }

    def format_config(self, versions: dict[str, str]) -> str:
        """Return the content of config.toml."""
        document = self.tables()
        if ":" in self.model["name"]:
            document["origin"] = {"folders": [str(folder) for folder in self.folders]}
        about = (
            "# Every setting of this pre-training, defaults included. `coterie pretrain` on this file runs it again.\n"
        )
        return about + tomlkit.dumps(document | {"versions": versions})


def load_pretraining(path: Path, overrides: Sequence[str] = ()) -> Pretraining:
    """Return the settings in a TOML file, with overrides such as `pretrain.steps=100` applied.

    An override of minutes replaces steps, and the other way round.

    Raises:
        Mistake: a key or value cannot be used, or the file is that of an experiment.
    """
    written = read_toml(path)
    raw, changed = apply_overrides(written, overrides)
    if {"data", "algorithm"} & raw.keys():
        raise Mistake(f"{path}: is an experiment, not a pre-training; `coterie run` runs it")
    folders = search_folders(path, raw)
    keep_overridden(raw, changed, "pretrain", "minutes", "steps")
    return parse_pretraining(remove_leftovers(written, raw, changed, folders, {"model": _model_keys}), folders)


def parse_pretraining(raw: Raw, folders: Sequence[Path]) -> Pretraining:
    """Return the settings in the content of a file.

    Raises:
        Mistake: a key or value cannot be used.
    """
    top = Keys(rng_seed=TOP["rng_seed"])
    check_top_level(raw, PRETRAINING_TABLES, top)
    known = {
        "pretrain": Keys(method=Key(METHODS, "fps")).join(read_keys("coterie.pretrain.fps:FPS")),
        "model": _model_keys(raw.get("model", {}), folders),
        "engine": Keys(device=Key(str, "auto"), compile=Key(bool, False)),
    }
    elsewhere = {key: full_name(name, key) for name, keys in known.items() for key in keys}
    at_top = {k: v for k, v in raw.items() if k not in (*PRETRAINING_TABLES, *IGNORED, "origin")}
    first = check_table("", at_top, top, elsewhere)
    values = {name: check_table(name, raw.get(name, {}), keys, elsewhere) for name, keys in known.items()}
    del values["pretrain"]["method"]
    values["model"]["name"] = find_checkpoints(values["model"]["name"], folders)
    with mistakes_in("pretrain"):
        settings = FPS(**values["pretrain"])
    return Pretraining(first["rng_seed"], settings, values["model"], folders=tuple(folders), **values["engine"])


def _model_keys(raw: Raw, folders: Sequence[Path]) -> Keys:
    if "name" not in raw:
        raise Mistake("`name` is missing; a pre-training trains one model, which it names", table="model")
    keys = model_keys(raw, folders)
    if raw.get(ADAPTER) is not None and ADAPTER_OPTIONS[0] in keys:
        raise Mistake(
            "a pre-training trains every weight; give the adapter to the run that starts from it",
            key=ADAPTER,
            value=raw[ADAPTER],
            table="model",
        )
    return keys


def build_trainer(settings: Pretraining) -> tuple[nn.Module, Trainer]:
    """Return the model as its author wrote it, and its training before the first step.

    Raises:
        Mistake: the model cannot be made, does not fit the images, or has nothing to train but a classifier.
    """
    size, given = settings.pretrain.image_size, settings.model
    shape = [settings.pretrain.channels, size, size]
    model = make_model(given, given["name"], shape, CLASSIFIER_CLASSES, settings.rng_seed, settings.folders)
    with mistakes_in("pretrain"):
        trainer = Trainer(
            settings.pretrain, model, settings.rng_seed, find_device(settings.device), compile=settings.compile
        )
    try:
        trainer.check_images(torch.zeros(2, *shape))
    except (RuntimeError, ValueError, IndexError, TypeError, NotImplementedError) as error:
        if isinstance(error, Mistake):
            raise
        raise Mistake(
            f"the model cannot take images of shape {shape} ({reason(error)}); choose another",
            key="name",
            value=given["name"],
            table="model",
        ) from error
    return model, trainer


def resolve_pretraining(settings: Pretraining, machine: Machine) -> Pretraining:
    """Return the settings with nothing left open: a device, a number of steps, and what follows from the image size.

    Where only minutes are given, the first steps are taken and timed, once, before the training begins. From then on
    the number of steps is a setting like any other: no time is measured again, and the run can be repeated.

    Raises:
        Mistake: as `build_trainer`.
    """
    device = machine.device if settings.device == "auto" else settings.device
    settings = replace(settings, device=device, pretrain=settings.pretrain.resolve())
    if settings.pretrain.steps is not None:
        build_trainer(settings)  # its mistakes must be found before anything is written
        return settings
    assert settings.pretrain.minutes is not None, "one of the two was asked for"
    _, trainer = build_trainer(replace(settings, pretrain=replace(settings.pretrain, steps=1)))
    steps = max(1, round(60 * settings.pretrain.minutes / _seconds_per_step(trainer)))
    return replace(settings, pretrain=replace(settings.pretrain, steps=steps))


def _seconds_per_step(trainer: Trainer) -> float:
    """Take some steps, and return the median of their seconds, without the first step's."""
    taken: list[float] = []
    while len(taken) < MIN_TIMED_STEPS or sum(taken) < MIN_TIMED_SECONDS:
        began = time.perf_counter()
        float(trainer.advance()["loss"])  # which waits for a device
        taken.append(time.perf_counter() - began)
    return statistics.median(taken[1:])
