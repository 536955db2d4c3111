"""A chain of stages in one file: `[[stage]]` tables, each with the keys that differ from the file's own.

    rounds = 20                  # the file's own keys hold in every stage that does not set them itself
    [data] ...  [model] ...  [algorithm] ...

    [[stage]]                    # a pre-training on fractals, since its table `pretrain` has a method
    name = "fractals"
    pretrain = { method = "fps", steps = 500 }

    [[stage]]                    # runs
    name = "own images"
    rounds = 5
    algorithm = { name = "fedssl", lr = 0.05 }

A stage's keys are read as overrides of the file's own keys. So `algorithm.name` removes keys that the new algorithm
does not take. Each stage starts from the weights of the one before.
"""

from __future__ import annotations

import copy
import re
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from coterie.core.errors import Mistake
from coterie.core.toml_text import toml_text
from coterie.experiment.pretraining_settings import Pretraining, parse_pretraining
from coterie.experiment.settings import Settings, parse_settings, remove_leftovers, search_folders
from coterie.experiment.toml_file import STAGES, Raw, apply_overrides, read_toml, read_value

_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9_-]{0,40}")
_FIRST_ONLY = ("weights", "prefix", "skip")
"""Keys of the file's own [pretrain] that say where the chain starts, so they hold in its first run alone."""


@dataclass(frozen=True)
class Stage:
    """One stage.

    Attributes:
        number: from 1.
        name: what the user calls it; the name of its algorithm or method unless given.
        settings: what it does.
    """

    number: int
    name: str
    settings: Settings | Pretraining

    @property
    def folder_name(self) -> str:
        """The name of its folder in stages/."""
        return f"{self.number}-{self.name}"

    def __str__(self) -> str:
        return f"stage {self.number}, {self.name}"


def load_stages(path: Path, overrides: Sequence[str] = ()) -> list[Stage]:
    """Return the stages of a file, with overrides applied.

    `table.key=value` changes the file's own key. `stage.K.table.key=value` changes stage K's, where K is its number or
    its name. An override of the file's own that every stage sets itself would change nothing, and is refused.

    Raises:
        Mistake: a key or value cannot be used; the sentence names the stage.
    """
    written = read_toml(path)
    own = {key: value for key, value in written.items() if key != STAGES}
    tables = _read_tables(path, written[STAGES])
    names = [_name(table, number) for number, table in enumerate(tables, 1)]
    folders = search_folders(path, own)
    for_stages = [each for each in overrides if each.strip().startswith(f"{STAGES}.")]
    own_overrides = [each for each in overrides if each not in for_stages]
    raw, changed = apply_overrides(own, own_overrides)
    for override in for_stages:
        _override_stage(override, tables, names)
    names = [_name(table, number) for number, table in enumerate(tables, 1)]
    tables = [{key: value for key, value in table.items() if key != "name"} for table in tables]
    for full_name in sorted(changed):
        if all(full_name in _full_names(table) for table in tables):
            raise Mistake(f"{full_name}: every stage sets it itself; write stage.1.{full_name}=... for one of them")
    raw = remove_leftovers(own, raw, changed, folders) if changed else raw
    stages: list[Stage] = []
    for number, (name, table) in enumerate(zip(names, tables, strict=True), 1):
        with mistakes_in_stage(f"stage {number}, {name}"):
            settings = _read_stage(raw, table, folders, is_first=not any(_is_run(s.settings) for s in stages))
            _require_place(settings, number, len(tables))
        stages.append(Stage(number, name, settings))
    return stages


@contextmanager
def mistakes_in_stage(stage: object) -> Iterator[None]:
    """Put the stage before the sentence of mistakes that are raised in a block."""
    try:
        yield
    except Mistake as mistake:
        raise Mistake(f"{stage}: {mistake}") from mistake


def _is_run(settings: Settings | Pretraining) -> bool:
    return isinstance(settings, Settings)


def _read_tables(path: Path, given: Any) -> list[Raw]:
    if not isinstance(given, list) or not given or not all(isinstance(table, dict) for table in given):
        raise Mistake(f"{path}: stages are written as tables [[stage]], one after another, with two brackets")
    return copy.deepcopy(given)


def _name(table: Raw, number: int) -> str:
    """Return a stage's name, which is also the name of its folder."""
    method = table["pretrain"].get("method") if isinstance(table.get("pretrain"), dict) else None
    algorithm = table["algorithm"].get("name") if isinstance(table.get("algorithm"), dict) else None
    name = table.get("name", method or str(algorithm or "run").replace(":", "-").replace(".", "-"))
    if not isinstance(name, str) or not _NAME.fullmatch(name):
        allowed = "at most 41 letters, digits, - and _, since a folder gets this name"
        raise Mistake(key=f"{STAGES}.{number}.name", value=name, allowed=allowed)
    return name


def _override_stage(override: str, tables: Sequence[Raw], names: Sequence[str]) -> None:
    """Apply `stage.K.key=value` or `stage.K.table.key=value` to a stage's table, in place."""
    left, _, value = override.partition("=")
    _, which, *path = (part.strip() for part in left.split("."))
    numbers = [str(number) for number in range(1, len(tables) + 1)]
    places = [k for k, each in enumerate(zip(numbers, names, strict=True)) if which in each]
    if len(places) != 1 or len(path) not in (1, 2) or not value.strip():
        known = ", ".join(f"{number} ({name})" for number, name in zip(numbers, names, strict=True))
        raise Mistake(
            f"{toml_text(override)}: an override of a stage is written stage.K.table.key=value, or stage.K.key=value; "
            f"there are the stages {known}"
        )
    table = tables[places[0]]
    if len(path) == 2:
        table = table.setdefault(path[0], {})
        if not isinstance(table, dict):
            raise Mistake(f"{toml_text(override)}: {path[0]} is not a table in this stage")
    table[path[-1]] = read_value(override, left.strip(), value.strip())


def _full_names(table: Raw) -> set[str]:
    """Return the full names of the keys that a stage sets."""
    inner = {f"{name}.{key}" for name, value in table.items() if isinstance(value, dict) for key in value}
    return inner | {name for name, value in table.items() if not isinstance(value, dict)}


def _read_stage(own: Raw, table: Raw, folders: Sequence[Path], is_first: bool) -> Settings | Pretraining:
    """Return the settings of a stage: its keys over the file's own.

    Args:
        own: the file's own keys.
        table: the stage's, without its name.
        folders: where functions of the user's own are looked for.
        is_first: whether it is the first run of the chain.
    """
    if isinstance(table.get("pretrain"), dict) and "method" in table["pretrain"]:
        engine = {key: value for key, value in own.get("engine", {}).items() if key == "device"}
        shared = {"rng_seed": own["rng_seed"]} if "rng_seed" in own else {}
        base = {**shared, **({"model": own["model"]} if "model" in own else {}), "engine": engine}
        return parse_pretraining(_merge(base, table), folders)
    base = copy.deepcopy(own)
    if not is_first and isinstance(base.get("pretrain"), dict):
        base["pretrain"] = {key: value for key, value in base["pretrain"].items() if key not in _FIRST_ONLY}
    merged = _merge(base, table)
    return parse_settings(remove_leftovers(base, merged, _full_names(table), folders), folders)


def _merge(base: Raw, table: Raw) -> Raw:
    """Return the base with a stage's keys over it, table by table."""
    both = {
        name: {**base[name], **value} if isinstance(value, dict) and isinstance(base.get(name), dict) else value
        for name, value in table.items()
    }
    return copy.deepcopy({**base, **both})


def _require_place(settings: Settings | Pretraining, number: int, total: int) -> None:
    """Refuse a stage that would throw away the weights of the one before, or give none to the next.

    Raises:
        Mistake: it is such a stage.
    """
    if isinstance(settings, Pretraining):
        if number > 1:
            raise Mistake("a pre-training begins with initial weights; make it the first stage")
        if total == 1:
            raise Mistake(
                "a file with nothing but a pre-training is written without [[stage]]; `coterie pretrain` runs it"
            )
    elif number > 1 and settings.pretrain.weights is not None:
        raise Mistake(
            "it starts from the weights of the stage before; leave it out",
            key="weights",
            value=settings.pretrain.weights,
            table="pretrain",
        )
