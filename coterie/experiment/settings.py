"""An experiment's settings: what its TOML file and the overrides say, checked, with every default filled in."""

from __future__ import annotations

import typing
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from coterie.core.errors import Mistake, mistakes_in
from coterie.experiment.file import Raw, overridden, read
from coterie.experiment.keys import Keys, keys_of
from coterie.experiment.refuse import checked, full, nearest, shown, unknown
from coterie.experiment.tables import (
    CHOICES,
    CHOSEN,
    FIXED,
    MODEL_CHOICES,
    PUBLISHED,
    TABLES,
    TOP,
    Engine,
    Evaluate,
    Origin,
    Pretrain,
    refuse_other_partitions,
)
from coterie.loop.cohort import Cohort
from coterie.loop.faults import Faults
from coterie.models.libraries import HUGGINGFACE, library_prefix

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
    folders: tuple[Path, ...]

    def tables(self) -> dict[str, Any]:
        """The settings as nested dicts, in the order of a file; what was left out and has no default is left out."""
        everything = {k: v for k, v in asdict(self).items() if k != "folders"}
        top = {k: v for k, v in everything.items() if not isinstance(v, dict)}
        inner = {name: {k: v for k, v in everything[name].items() if v is not None} for name in TABLES}
        return {"rng_seed": top["rng_seed"], "rounds": top["rounds"]} | {k: v for k, v in inner.items() if v}


def model_names(settings: Settings) -> list[str]:
    """The name of the model, or the names of several, each once."""
    return _names(settings.model)


def _names(model: Mapping[str, Any]) -> list[str]:
    by_client = model.get("clients", {})
    return list(dict.fromkeys(by_client.values() or model.get("names") or [model["name"]]))


def load(path: Path, overrides: Sequence[str] = ()) -> Settings:
    """The settings in a TOML file, with overrides such as `algorithm.lr=0.1` put in.

    An override of a choice (data.source, data.partition, model.name, algorithm.name and so on) takes the keys with it
    that belonged to the old choice and that the new one does not take, or takes as something else; one of cohort.size
    replaces cohort.fraction, and the other way round; so do algorithm.local_steps and algorithm.local_epochs.

    Raises:
        Mistake: a key or value cannot be used.
    """
    written = read(path)
    raw, changed = overridden(written, overrides)
    if not {"data", "algorithm"} & raw.keys() and "pretrain" in raw:
        raise Mistake(f"{path}: is a pre-training, and no experiment; `coterie pretrain` runs it")
    folders = folders_of(path, raw)
    return parse(without_leftovers(written, raw, changed, folders), folders)


def parse(raw: Raw, folders: Sequence[Path]) -> Settings:
    """The settings in the content of a file.

    Args:
        raw: what the file says.
        folders: where relative paths and functions of the user's own are looked for, first to last.

    Raises:
        Mistake: a key or value cannot be used.
    """
    top_level(raw)
    refuse_other_partitions(raw.get("data", {}))
    known = {name: CHOSEN[name](raw.get(name, {}), folders) for name in CHOSEN}
    known |= {name: keys_of(table) for name, table in FIXED.items()}
    elsewhere = {key: full(name, key) for name, keys in known.items() for key in keys}
    top = checked("", {k: v for k, v in raw.items() if k not in (*TABLES, *IGNORED, "origin")}, TOP, elsewhere)
    values = {name: checked(name, raw.get(name, {}), keys, elsewhere) for name, keys in known.items()}
    for name in ("data", "seed_set"):
        values[name] = _absolute(values[name], known[name], folders)
    values["model"] = {key: checkpoints(value, folders) for key, value in values["model"].items()}
    values["pretrain"]["weights"] = _weights(values["pretrain"]["weights"], _names(values["model"]), folders)
    fixed = {}
    for name, become in FIXED.items():
        with mistakes_in(name):
            fixed[name] = become(**values[name])
    chosen = {name: values[name] for name in CHOSEN}
    return Settings(folders=tuple(folders), **top, **chosen, **fixed)  # type: ignore[arg-type]


def top_level(raw: Raw, tables: Sequence[str] = TABLES, top: Keys = TOP) -> None:
    """Every table is known, and is a table.

    Raises:
        Mistake: one is not.
    """
    for name, value in raw.items():
        if name in (*tables, *IGNORED, "origin"):
            if not isinstance(value, dict):
                raise Mistake(f"{name} = {shown(value)}: it must be a table, [{name}]")
        elif isinstance(value, dict):
            near = nearest(name, tables)
            hint = f"did you mean [{near}]?" if near else f"there are {', '.join(f'[{t}]' for t in tables)}"
            raise Mistake(f"[{name}]: there is no such table; {hint}")
        elif name not in top and nearest(name, top):
            raise unknown("", name, value, top)


def folders_of(path: Path, raw: Raw) -> list[Path]:
    """Where functions of the user's own are looked for: where the file says that it began, if a run wrote it; then the
    file's folder; then the working directory.
    """
    top_level({"origin": raw.get("origin", {})})
    began = checked("origin", raw.get("origin", {}), keys_of(Origin))["folders"]
    found = [*map(Path, began if isinstance(began, list) else []), path.resolve().parent, Path.cwd()]
    return list(dict.fromkeys(found))


def _absolute(table: dict[str, Any], keys: Keys, folders: Sequence[Path]) -> dict[str, Any]:
    """A table's values with relative paths as absolute ones: the first that exists, or else in the first folder."""
    paths = [name for name, key in keys.items() if Path in (key.kind, *typing.get_args(key.kind))]
    result = dict(table)
    for name in paths:
        if result.get(name) is not None:
            result[name] = str(_found(result[name], folders))
    return result


def _found(path: str | Path, folders: Sequence[Path]) -> Path:
    """A path from the first of the folders in which it exists, or else from the first."""
    candidates = [folder / Path(path).expanduser() for folder in folders]
    return next((c for c in candidates if c.exists()), candidates[0])


def _weights(given: Any, names: Sequence[str], folders: Sequence[Path]) -> Any:
    """What `pretrain.weights` says for models of these names, with files found."""
    if isinstance(given, Mapping):
        models = {checkpoints(name, folders): each for name, each in given.items()}
        return {name: _weights(each, [name], folders) for name, each in models.items()}
    if given is None or given == "none" or given.partition(":")[0] == PUBLISHED:
        return given
    if library_prefix(given) is None:
        return str(_found(given, folders))
    return _published(checkpoints(given, folders), names[0]) if len(names) == 1 else given


def _published(weights: str, name: str) -> str:
    """The weights that a library's model is called by, "NAME" or "NAME.TAG", as those published for the model."""
    if weights == name:
        return PUBLISHED
    if not weights.startswith(f"{name}."):
        raise Mistake(
            f'pretrain.weights = "{weights}": belong to a model of that name, and this one is "{name}"; give it as '
            "model.name too, or a safetensors file"
        )
    return f"{PUBLISHED}:{weights.removeprefix(f'{name}.')}"


def checkpoints(value: Any, folders: Sequence[Path]) -> Any:
    """What a key of [model] says, with folders of Hugging Face found; what is no folder is a name on the Hub."""
    if isinstance(value, list):
        return [checkpoints(each, folders) for each in value]
    if isinstance(value, Mapping):
        return {name: checkpoints(each, folders) for name, each in value.items()}
    if not isinstance(value, str) or not value.startswith(HUGGINGFACE):
        return value
    path = _found(value.removeprefix(HUGGINGFACE), folders)
    return f"{HUGGINGFACE}{path.resolve()}" if path.is_dir() else value


def without_leftovers(
    written: Raw,
    raw: Raw,
    changed: set[str],
    folders: Sequence[Path],
    chosen: Mapping[str, Callable[..., Keys]] = CHOSEN,
) -> Raw:
    """The content without the keys that an override of a choice has made meaningless."""
    result = dict(raw)
    one_of(result, changed, "model", *MODEL_CHOICES)
    for table, keys_for in chosen.items():
        choices = {full(table, choice) for choice in CHOICES.get(table, ("name",))}
        if changed & choices and isinstance(written.get(table), dict):
            old, new = (keys_for(content[table], folders) for content in (written, result))
            left = {k for k in result[table] if k in old and (k not in new or new[k].type != old[k].type)}
            mine = {key for key in result[table] if full(table, key) in changed}
            result[table] = {key: value for key, value in result[table].items() if key in mine or key not in left}
    one_of(result, changed, "cohort", "size", "fraction")
    one_of(result, changed, "algorithm", "local_steps", "local_epochs")
    if {"data.partition", "data.num_clients"} & changed == {"data.partition"} and raw["data"]["partition"] == "natural":
        result["data"].pop("num_clients", None)
    return result


def one_of(raw: Raw, changed: set[str], table: str, *keys: str) -> None:
    """Where one of keys that exclude one another is overridden, the others go."""
    given = [key for key in keys if full(table, key) in changed]
    if len(given) == 1:
        raw[table] = {key: value for key, value in raw[table].items() if key not in keys or key in given}
