"""A run as its folder tells it."""

from __future__ import annotations

import json
import tomllib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from coterie.core.errors import Mistake
from coterie.track import rounds_file, summarise
from coterie.track.rounds_file import Record
from coterie.track.run_folder import INPUTS_FILE
from coterie.track.summary import last_spread


@dataclass(frozen=True)
class Run:
    """What a report is made from.

    Attributes:
        name: the folder's.
        config: key -> value, with the table before the key ("algorithm.lr"), in the order of config.toml.
        versions: what the run was made with.
        end: summary.json, or for a run that is not over the same numbers up to now.
        over: whether the run is over.
        clients: clients.json. labels: the names of the labels that it counts, where inputs.json has them.
        start: start/start.json, a model each; empty where they began with initial weights of their own.
    """

    folder: Path
    name: str
    config: dict[str, Any]
    versions: dict[str, str]
    rounds: list[Record]
    end: dict[str, Any]
    over: bool
    clients: list[dict[str, Any]]
    start: Sequence[Mapping[str, Any]] = ()
    labels: Sequence[str] | None = None


def read_run(folder: Path) -> Run:
    """The run in a folder.

    Raises:
        Mistake: it is no run folder, or a file in it is damaged.
    """
    if is_pretraining(folder):
        raise Mistake(f"{folder}: is a pre-training, which has no rounds and no accuracy; name a run's folder")
    tables, versions = _config(folder)
    records = rounds_file.read_records(folder / "rounds.jsonl")
    over = (folder / "summary.json").is_file()
    target = tables.get("evaluate", {}).get("target_accuracy")
    end = _json(folder / "summary.json") if over else summarise(records, target)
    clients = _json(folder / "clients.json") if (folder / "clients.json").is_file() else []
    name = folder.resolve().name
    beginning = folder / "start" / "start.json"
    start = _json(beginning) if beginning.is_file() else ()
    return Run(folder, name, flat(tables), versions, records, end, over, clients, start, _labels(folder / INPUTS_FILE))


def _labels(path: Path) -> list[str] | None:
    """The names of the labels; None where they have none, or a run of an earlier version does not say."""
    found = _json(path) if path.is_file() else {"classes": None}
    if not isinstance(found, dict) or "classes" not in found:
        raise Mistake(f"{path}: is damaged (it names no classes); run it again")
    names: list[str] | None = found["classes"]
    return names


def is_pretraining(folder: Path) -> bool:
    """Whether the folder is one that `coterie pretrain` wrote.

    Raises:
        Mistake: it is no folder of ours.
    """
    return "method" in _config(folder)[0].get("pretrain", {})


def read_pretraining(folder: Path) -> Run:
    """The pre-training in a folder, whose rounds are its intervals, and which has no clients.

    Raises:
        Mistake: a file in it is damaged.
    """
    tables, versions = _config(folder)
    records = rounds_file.read_records(folder / "intervals.jsonl", "interval")
    over = (folder / "summary.json").is_file()
    end = _json(folder / "summary.json") if over else last_spread(records)
    return Run(folder, folder.resolve().name, flat(tables), versions, records, end, over, [])


def _config(folder: Path) -> tuple[dict[str, Any], dict[str, str]]:
    """The settings, and what the run was made with."""
    tables = tomllib.loads(_text(folder / "config.toml"))
    versions = tables.pop("versions", {})
    tables.pop("origin", None)
    return tables, versions


def flat(tables: Mapping[str, Any]) -> dict[str, Any]:
    """Nested tables as one dict of full names.

    >>> flat({"rounds": 3, "data": {"source": "digits"}})
    {'rounds': 3, 'data.source': 'digits'}
    """
    result: dict[str, Any] = {}
    for name, value in tables.items():
        result |= {f"{name}.{key}": v for key, v in value.items()} if isinstance(value, Mapping) else {name: value}
    return result


def _text(path: Path) -> str:
    try:
        return path.read_text(encoding="utf-8")
    except FileNotFoundError as error:
        raise Mistake(f"{path.parent}: is no run folder, since it has no {path.name}") from error
    except OSError as error:
        raise Mistake(f"{path}: cannot be read ({error.strerror})") from error


def _json(path: Path) -> Any:
    try:
        return json.loads(_text(path))
    except ValueError as error:
        raise Mistake(f"{path}: is damaged ({error}); a resumed run writes it anew") from error
