"""A pre-training's settings: the content of its TOML file with overrides, checked, with every default filled in.

rng_seed = 0
[pretrain]  what is trained and for how long: the keys of `coterie.pretrain.fps.FPS`, and method = "fps"
[model]     as in an experiment; it is made with a classifier, which is left out
[engine]    device, compile, precision
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import tomlkit

from coterie.core.errors import Mistake, mistakes_in
from coterie.experiment.check_values import check_table, full_name
from coterie.experiment.keys import Key, Keys
from coterie.experiment.read_keys import read_keys
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

if TYPE_CHECKING:
    from coterie.engines.mixed_precision import Precision
    from coterie.pretrain.fps import FPS

PRETRAINING_TABLES = ("pretrain", "model", "engine")
METHODS = Literal["fps"]


@dataclass(frozen=True)
class Pretraining:
    """What is to be trained.

    Attributes:
        pretrain: how.
        model: the table of that name. A key with the value None was left out and has no default.
        device: where; "auto" until it is resolved.
        compile: whether steps are compiled.
        precision: "bf16" computes the encoder's forwards by autocast; "full" does not.
        folders: where functions of the user's own are looked for.
    """

    rng_seed: int
    pretrain: FPS
    model: dict[str, Any]
    device: str
    folders: tuple[Path, ...]
    compile: bool = False
    precision: Precision = "full"

    def tables(self) -> dict[str, Any]:
        """Return the settings as nested dicts, in the order of a file, without keys that have no value."""
        given = {name: value for name, value in asdict(self.pretrain).items() if value is not None}
        model = {name: value for name, value in self.model.items() if value is not None}
        return {
            "rng_seed": self.rng_seed,
            "pretrain": {"method": "fps", **given},
            "model": model,
            "engine": {"device": self.device}
            | ({"compile": True} if self.compile else {})
            | ({"precision": self.precision} if self.precision != "full" else {}),
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
    if {"data", "algorithm", "stage"} & raw.keys():
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
        "engine": Keys(
            device=Key(str, "auto"), compile=Key(bool, False), precision=Key(Literal["full", "bf16"], "full")
        ),
    }
    elsewhere = {key: full_name(name, key) for name, keys in known.items() for key in keys}
    at_top = {k: v for k, v in raw.items() if k not in (*PRETRAINING_TABLES, *IGNORED, "origin")}
    first = check_table("", at_top, top, elsewhere)
    values = {name: check_table(name, raw.get(name, {}), keys, elsewhere) for name, keys in known.items()}
    del values["pretrain"]["method"]
    values["model"]["name"] = find_checkpoints(values["model"]["name"], folders)
    from coterie.pretrain.fps import FPS

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
