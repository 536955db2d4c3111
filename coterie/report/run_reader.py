"""Read a run, or a pre-training, from its folder."""

from __future__ import annotations

import json
import tomllib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import accumulate
from pathlib import Path
from typing import Any

from coterie.core.errors import Mistake
from coterie.track.rounds_file import Record, read_records
from coterie.track.run_folder import INPUTS_FILE, START_FILE
from coterie.track.summary import last_spread, summarise


@dataclass(frozen=True)
class Run:
    """A run, or a pre-training, as its folder describes it.

    Attributes:
        folder: where it was read from.
        name: of the folder.
        config: key -> value, with the table before the key ("algorithm.lr"), in the order of config.toml.
        versions: of the packages that the run was made with.
        rounds: its records; those of a pre-training are intervals.
        end: summary.json; where the run is not over, the same numbers up to now.
        over: whether the run is over.
        clients: clients.json; empty for a pre-training.
        start: start/start.json, an entry for each model; empty where they began with initial weights of their own.
        labels: the labels' names, where inputs.json has them.
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

    @property
    def bytes_once(self) -> int:
        """Bytes sent before the first round, in both directions; 0 until the run is over."""
        return sum(self.end.get("bytes_once", {}).values())

    def bytes_so_far(self) -> list[float]:
        """Return the bytes sent in both directions up to the end of each round, `bytes_once` included."""
        each = (float(record["bytes_up"] + record["bytes_down"]) for record in self.rounds)
        return list(accumulate(each, initial=float(self.bytes_once)))[1:]

    def measure(self, name: str) -> list[float | None]:
        """Return one measure, such as "test_accuracy", of each round; None where it was not measured."""
        return [record.get(name) for record in self.rounds]


def read_run(folder: Path) -> Run:
    """Read the run in a folder, finished or not; refuse a pre-training.

    Raises:
        Mistake: it is not a run folder, or a file in it is damaged.
    """
    if is_pretraining(folder):
        raise Mistake(f"{folder}: is a pre-training, which has no rounds and no accuracy; give the folder of a run")
    tables, versions = _read_config(folder)
    records = read_records(folder / "rounds.jsonl")
    over = (folder / "summary.json").is_file()
    target = tables.get("evaluate", {}).get("target_accuracy")
    end = _read_json(folder / "summary.json") if over else summarise(records, target)
    clients = _read_json(folder / "clients.json") if (folder / "clients.json").is_file() else []
    name = folder.resolve().name
    start_path = folder / "start" / START_FILE
    start = _read_json(start_path) if start_path.is_file() else ()
    labels = _read_labels(folder / INPUTS_FILE)
    return Run(folder, name, flatten(tables), versions, records, end, over, clients, start, labels)


def _read_labels(path: Path) -> list[str] | None:
    """Read the labels' names from inputs.json; None where they have none, or an earlier version wrote no such file."""
    inputs = _read_json(path) if path.is_file() else {"classes": None}
    if not isinstance(inputs, dict) or "classes" not in inputs:
        raise Mistake(f"{path}: is damaged (it names no classes); run it again")
    names: list[str] | None = inputs["classes"]
    return names


def is_pretraining(folder: Path) -> bool:
    """Whether a folder was written by `coterie pretrain`.

    Raises:
        Mistake: it is not a run folder.
    """
    return "method" in _read_config(folder)[0].get("pretrain", {})


def read_pretraining(folder: Path) -> Run:
    """Read the pre-training in a folder; its rounds are its intervals, and it has no clients.

    Raises:
        Mistake: a file in it is damaged.
    """
    tables, versions = _read_config(folder)
    records = read_records(folder / "intervals.jsonl", "interval")
    over = (folder / "summary.json").is_file()
    end = _read_json(folder / "summary.json") if over else last_spread(records)
    return Run(folder, folder.resolve().name, flatten(tables), versions, records, end, over, [])


def _read_config(folder: Path) -> tuple[dict[str, Any], dict[str, str]]:
    """Read the settings, and the versions of the packages that the run was made with."""
    tables = tomllib.loads(_read_text(folder / "config.toml"))
    versions = tables.pop("versions", {})
    tables.pop("origin", None)
    return tables, versions


def flatten(tables: Mapping[str, Any]) -> dict[str, Any]:
    """Turn nested tables into one dict, with the table's name before each key.

    >>> flatten({"rounds": 3, "data": {"source": "digits"}})
    {'rounds': 3, 'data.source': 'digits'}
    """
    flat: dict[str, Any] = {}
    for name, value in tables.items():
        flat |= {f"{name}.{key}": v for key, v in value.items()} if isinstance(value, Mapping) else {name: value}
    return flat


def _read_text(path: Path) -> str:
    """Return the text of a file in a run folder; if it is absent, refuse the folder as not a run folder."""
    try:
        return path.read_text(encoding="utf-8")
    except FileNotFoundError as error:
        raise Mistake(f"{path.parent}: is not a run folder, since it has no {path.name}") from error
    except OSError as error:
        raise Mistake(f"{path}: cannot be read ({error.strerror})") from error


def _read_json(path: Path) -> Any:
    """Return the value of a JSON file in a run folder; refuse a damaged file."""
    try:
        return json.loads(_read_text(path))
    except ValueError as error:
        raise Mistake(f"{path}: is damaged ({error}); resume the run, which writes it again") from error
