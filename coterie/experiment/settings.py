"""An experiment's settings: the content of its TOML file with overrides, checked, with every default filled in."""

from __future__ import annotations

import typing
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from coterie.core.errors import Mistake, mistakes_in
from coterie.core.registry import nearest
from coterie.core.toml_text import toml_text
from coterie.experiment.check_values import check_table, full_name, unknown_key
from coterie.experiment.keys import Keys
from coterie.experiment.read_keys import read_keys
from coterie.experiment.tables import (
    ADAPTER,
    CHOICES,
    CHOSEN,
    FIXED,
    MODEL_CHOICES,
    PUBLISHED,
    TABLES,
    TOP,
    Deploy,
    Engine,
    Evaluate,
    Pretrain,
    refuse_other_partitions,
)
from coterie.experiment.toml_file import Raw, apply_overrides, read_toml
from coterie.models.libraries import HUGGINGFACE, library_prefix
from coterie.weights.cards import BOX, card

if TYPE_CHECKING:
    from coterie.core.task_options import TaskOptions
    from coterie.loop.cohort import Cohort
    from coterie.loop.communication import Communication
    from coterie.loop.faults import Faults
    from coterie.privacy.table import Privacy
    from coterie.track.track_table import Track

IGNORED = ("versions",)
"""Tables that a run writes into its config.toml for the reader."""


@dataclass(frozen=True)
class Settings:
    """What is to be run.

    Attributes:
        data, model, algorithm, seed_set, aggregation, attack, probe: the tables of that name. A key with the value None
            was left out and has no default.
        folders: where functions of the user's own are looked for.
    """

    rounds: int
    rng_seed: int
    data: dict[str, Any]
    model: dict[str, Any]
    algorithm: dict[str, Any]
    seed_set: dict[str, Any]
    cohort: Cohort
    aggregation: dict[str, Any]
    attack: dict[str, Any]
    probe: dict[str, Any]
    evaluate: Evaluate
    pretrain: Pretrain
    engine: Engine
    faults: Faults
    communication: Communication
    privacy: Privacy
    deploy: Deploy
    task: TaskOptions
    track: Track
    folders: tuple[Path, ...]

    def tables(self) -> dict[str, Any]:
        """Return the settings as nested dicts, in the order of a file, without keys that have no value."""
        everything = {k: v for k, v in asdict(self).items() if k != "folders"}
        top = {k: v for k, v in everything.items() if not isinstance(v, dict)}
        inner = {name: {k: v for k, v in everything[name].items() if v is not None} for name in TABLES}
        if self.privacy.unit == "none":  # the keys of noise have no effect then
            secure = {k: v for k, v in inner["privacy"].items() if k.startswith("secure")}
            inner["privacy"] = {"unit": "none"} | (secure if self.privacy.secure_sum else {})
        if not self.track.to:
            inner["track"] = {}
        return {"rng_seed": top["rng_seed"], "rounds": top["rounds"]} | {k: v for k, v in inner.items() if v}


def model_names(settings: Settings) -> list[str]:
    """Return the name of the model, or the names of several, each once."""
    return _names(settings.model)


def _names(model: Mapping[str, Any]) -> list[str]:
    by_client = model.get("clients", {})
    return list(dict.fromkeys(by_client.values() or model.get("names") or [model["name"]]))


def load_settings(path: Path, overrides: Sequence[str] = ()) -> Settings:
    """Return the settings in a TOML file, with overrides such as `algorithm.lr=0.1` applied.

    An override of a choice (data.source, data.partition, model.name, algorithm.name and so on) removes the keys of the
    old choice that the new one does not take, or takes as something else. An override of cohort.size replaces
    cohort.fraction, and the other way round; so do algorithm.local_steps and algorithm.local_epochs.

    Raises:
        Mistake: a key or value cannot be used.
    """
    written = read_toml(path)
    if "stage" in written:
        raise Mistake(f"{path}: is a chain of stages, not one experiment; `coterie run` runs it")
    raw, changed = apply_overrides(written, overrides)
    if not {"data", "algorithm"} & raw.keys() and "pretrain" in raw:
        raise Mistake(f"{path}: is a pre-training, not an experiment; `coterie pretrain` runs it")
    folders = search_folders(path, raw)
    return parse_settings(remove_leftovers(written, raw, changed, folders), folders)


def parse_settings(raw: Raw, folders: Sequence[Path]) -> Settings:
    """Return the settings in the content of a file.

    Args:
        raw: the content.
        folders: where relative paths and functions of the user's own are looked for, first to last.

    Raises:
        Mistake: a key or value cannot be used.
    """
    check_top_level(raw)
    refuse_other_partitions(raw.get("data", {}))
    known = {name: CHOSEN[name](raw.get(name, {}), folders) for name in CHOSEN}
    known |= {name: read_keys(FIXED.places[name]) for name in FIXED}
    elsewhere = {key: full_name(name, key) for name, keys in known.items() for key in keys}
    top = check_table("", {k: v for k, v in raw.items() if k not in (*TABLES, *IGNORED, "origin")}, TOP, elsewhere)
    values = {name: check_table(name, raw.get(name, {}), keys, elsewhere) for name, keys in known.items()}
    for name in ("data", "seed_set"):
        values[name] = make_paths_absolute(values[name], known[name], folders)
    if values["model"].get(ADAPTER) == "lora" and "adapter_weights" in known["model"]:
        path = Keys(adapter_weights=known["model"]["adapter_weights"])
        values["model"] = make_paths_absolute(values["model"], path, folders)
    values["model"] = {key: find_checkpoints(value, folders) for key, value in values["model"].items()}
    values["pretrain"]["weights"] = _find_weights(values["pretrain"]["weights"], _names(values["model"]), folders)
    fixed: dict[str, Any] = {}
    for name in FIXED:
        with mistakes_in(name):
            fixed[name] = FIXED[name](**values[name])
    chosen: dict[str, Any] = {name: values[name] for name in CHOSEN}
    return Settings(folders=tuple(folders), **top, **chosen, **fixed)


def check_top_level(raw: Raw, tables: Sequence[str] = TABLES, top: Keys = TOP) -> None:
    """Refuse tables that are unknown, and other values in the place of a table.

    Raises:
        Mistake: there is one.
    """
    for name, value in raw.items():
        if name in (*tables, *IGNORED, "origin"):
            if not isinstance(value, dict):
                raise Mistake(key=name, value=value, allowed=f"a table, [{name}]")
        elif isinstance(value, dict):
            near = nearest(name, tables)
            hint = f"did you mean [{near}]?" if near else f"there are {', '.join(f'[{t}]' for t in tables)}"
            raise Mistake(f"[{name}]: there is no such table; {hint}")
        elif name not in top and nearest(name, top):
            raise unknown_key("", name, value, top)


def search_folders(path: Path, raw: Raw) -> list[Path]:
    """Return where functions of the user's own are looked for, first to last.

    These are the folders of the file that a run began with, if a run wrote this one; the file's folder; and the working
    directory.
    """
    check_top_level({"origin": raw.get("origin", {})})
    began = check_table("origin", raw.get("origin", {}), read_keys("coterie.experiment.tables:Origin"))["folders"]
    found = [*map(Path, began if isinstance(began, list) else []), path.resolve().parent, Path.cwd()]
    return list(dict.fromkeys(found))


def make_paths_absolute(table: dict[str, Any], keys: Keys, folders: Sequence[Path]) -> dict[str, Any]:
    """Return the values of a table with each path as text, in the first of the folders that has it, or the first.

    Names on the Hub of Hugging Face, which begin with "huggingface:", stay as they are.
    """
    paths = [name for name, key in keys.items() if Path in (key.kind, *typing.get_args(key.kind))]
    result = dict(table)
    for name in paths:
        given = result.get(name)
        if given is not None:
            on_hub = str(given).startswith(HUGGINGFACE)
            result[name] = find_checkpoints(given, folders) if on_hub else str(_find_path(given, folders))
    return result


def _find_path(path: str | Path, folders: Sequence[Path]) -> Path:
    """Return a path in the first of the folders that has it, or else in the first folder."""
    candidates = [folder / Path(path).expanduser() for folder in folders]
    return next((c for c in candidates if c.exists()), candidates[0])


def _find_weights(given: Any, names: Sequence[str], folders: Sequence[Path]) -> Any:
    """Return the value of `pretrain.weights` for models of these names, with files found."""
    if isinstance(given, Mapping):
        models = {find_checkpoints(name, folders): each for name, each in given.items()}
        return {name: _find_weights(each, [name], folders) for name, each in models.items()}
    if given is None or given == "none" or given.partition(":")[0] == PUBLISHED:
        return given
    if given.startswith(BOX):
        with mistakes_in("pretrain"):
            card(given.removeprefix(BOX))  # it refuses a name that is unknown
        return given
    if library_prefix(given) is None:
        return str(_find_path(given, folders))
    return _weights_value(find_checkpoints(given, folders), names[0]) if len(names) == 1 else given


def _weights_value(weights: str, name: str) -> str:
    """Return "published" or "published:TAG" for weights that are written as a library's model, NAME or NAME.TAG."""
    if weights == name:
        return PUBLISHED
    if not weights.startswith(f"{name}."):
        raise Mistake(
            f"these weights belong to a model of that name, but the model is {toml_text(name)}; set model.name to it, "
            "or name a safetensors file",
            key="weights",
            value=weights,
            table="pretrain",
        )
    return f"{PUBLISHED}:{weights.removeprefix(f'{name}.')}"


def find_checkpoints(value: Any, folders: Sequence[Path]) -> Any:
    """Return the value of a key of [model], with folders of Hugging Face found; other names are on the Hub."""
    if isinstance(value, list):
        return [find_checkpoints(each, folders) for each in value]
    if isinstance(value, Mapping):
        return {name: find_checkpoints(each, folders) for name, each in value.items()}
    if not isinstance(value, str) or not value.startswith(HUGGINGFACE):
        return value
    path = _find_path(value.removeprefix(HUGGINGFACE), folders)
    return f"{HUGGINGFACE}{path.resolve()}" if path.is_dir() else value


def remove_leftovers(
    written: Raw,
    raw: Raw,
    changed: set[str],
    folders: Sequence[Path],
    chosen: Mapping[str, Callable[[Raw, Sequence[Path]], Keys]] = CHOSEN,
) -> Raw:
    """Return the content without keys that an override of a choice has made meaningless.

    Args:
        written: the content of the file.
        raw: the content with the overrides.
        changed: the full names of the overridden keys.
        folders: where functions of the user's own are looked for.
        chosen: the tables with choices, and the function that returns the keys of each.
    """
    result = dict(raw)
    keep_overridden(result, changed, "model", *MODEL_CHOICES)
    for table, keys_for in chosen.items():
        choices = {full_name(table, choice) for choice in CHOICES.get(table, ("name",))}
        if changed & choices and isinstance(written.get(table), dict):
            old, new = (keys_for(content[table], folders) for content in (written, result))
            left = {k for k in result[table] if k in old and (k not in new or new[k].type != old[k].type)}
            mine = {key for key in result[table] if full_name(table, key) in changed}
            result[table] = {key: value for key, value in result[table].items() if key in mine or key not in left}
    keep_overridden(result, changed, "cohort", "size", "fraction")
    keep_overridden(result, changed, "algorithm", "local_steps", "local_epochs")
    if {"data.partition", "data.num_clients"} & changed == {"data.partition"} and raw["data"]["partition"] == "natural":
        result["data"].pop("num_clients", None)
    return result


def keep_overridden(raw: Raw, changed: set[str], table: str, *keys: str) -> None:
    """Of keys that exclude one another, remove the others where one is overridden."""
    overridden = [key for key in keys if full_name(table, key) in changed]
    if len(overridden) == 1:
        raw[table] = {key: value for key, value in raw[table].items() if key not in keys or key in overridden}
