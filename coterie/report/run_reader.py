"""Read a run, or a pre-training, from its folder."""

from __future__ import annotations

import json
import tomllib
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import accumulate
from pathlib import Path
from typing import Any

from coterie.core.errors import Mistake, reason
from coterie.loop.manifests import read_kept_files
from coterie.track.checksums import SUMMARY_FILE, check_files, note_unchecked, read_checksums
from coterie.track.rounds_file import Record, read_records
from coterie.track.run_folder import CLIENTS_FILE, CONFIG_FILE, INPUTS_FILE, PREDICTIONS_FILE, SILOS_FILE, START_FILE
from coterie.track.summary import last_spread, summarise

_REMEDY = "continue the run with --resume, which writes it again, or put back a copy"
_ROUND_TYPES = {
    "seconds": "number",
    "elapsed": "number",
    "cohort_size": "count",
    "reached": "count",
    "bytes_up": "count",
    "bytes_down": "count",
    "dropped": "objects",
    "train_loss": "number?",
    "test_loss": "number?",
    "test_accuracy": "number?",
}
"""What every record of a round has, as `_has_kind` takes it."""
_INTERVAL_TYPES = {"step": "count", "loss": "number?", "seconds": "number", "elapsed": "number"}
_SUMMARY_TYPES = {
    "rounds": "count",
    "elapsed": "number",
    "test_accuracy": "number?",
    "best_test_accuracy": "number?",
    "rounds_to_target": "number?",
    "bytes_up": "count",
    "bytes_down": "count",
}


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
        predictions: predictions.json, where the run has one.
        hosts: client -> its silo, where the clients' rows lie at silos; None where they do not.
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
    predictions: dict[str, Any] | None = None
    hosts: Mapping[str, str] | None = None

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
    over = _is_over(folder)
    records = _read_records(folder, "round", over)
    target = tables.get("evaluate", {}).get("target_accuracy")
    end = _read_end(folder, "rounds", len(records)) if over else summarise(records, target)
    clients = _read_objects(folder / CLIENTS_FILE, ["id", "examples", "label_counts"])
    name = folder.resolve().name
    start = _read_objects(folder / "start" / START_FILE, ["model", "loaded", "frozen", "test_accuracy"])
    labels = _read_labels(folder / INPUTS_FILE)
    predictions, hosts = _read_predictions(folder) if over else None, _read_hosts(folder / SILOS_FILE)
    return Run(folder, name, flatten(tables), versions, records, end, over, clients, start, labels, predictions, hosts)


def _read_hosts(path: Path) -> dict[str, str] | None:
    """Return the silo of each client; None where the run is not one between silos."""
    found = read_json(path) if path.is_file() else None
    clients = found.get("clients", ()) if isinstance(found, dict) else ()
    return None if found is None else {str(each["client"]): str(each["silo"]) for each in clients}


def _read_predictions(folder: Path) -> dict[str, Any] | None:
    """Read predictions.json; None where the run has none."""
    path = folder / PREDICTIONS_FILE
    found: Any = read_json(path) if path.is_file() else None
    if found is not None and not (isinstance(found, dict) and isinstance(found.get("task"), str)):
        raise Mistake(f"{path}: is damaged (it names no task); {_REMEDY}")
    predictions: dict[str, Any] | None = found
    return predictions


def _read_labels(path: Path) -> list[str] | None:
    """Read the labels' names from inputs.json; None where they have none, or an earlier version wrote no such file."""
    inputs = read_json(path) if path.is_file() else {"classes": None}
    names: Any = inputs.get("classes", 0) if isinstance(inputs, dict) else 0
    if names is not None and not (isinstance(names, list) and all(isinstance(name, str) for name in names)):
        raise Mistake(f"{path}: is damaged (it names no classes); {_REMEDY}")
    classes: list[str] | None = names
    return classes


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
    over = _is_over(folder)
    records = _read_records(folder, "interval", over)
    end = _read_end(folder, "steps", records[-1]["step"] if records else 0) if over else last_spread(records)
    return Run(folder, folder.resolve().name, flatten(tables), versions, records, end, over, [])


def _read_config(folder: Path) -> tuple[dict[str, Any], dict[str, str]]:
    """Read the settings, and the versions of the packages that the run was made with, after checking checksums."""
    path = folder / CONFIG_FILE
    check_files(folder, [name for name in read_checksums(folder) or () if not _is_result_file(name)])
    text = _read_text(path)
    try:
        tables = tomllib.loads(text)
    except (ValueError, RecursionError) as error:
        raise Mistake(f"{path}: is damaged ({reason(error)}); {_REMEDY}") from error
    versions = tables.pop("versions", {})
    tables.pop("origin", None)
    pretrain = tables.get("pretrain", {})
    if not all(isinstance(each, dict) for each in (tables.get("model"), tables.get("algorithm", pretrain), pretrain)):
        raise Mistake(f"{path}: is damaged (it lacks tables that every run has); {_REMEDY}")
    return tables, versions


def _is_over(folder: Path) -> bool:
    """Return whether a run is over. A note says so if its files cannot be checked for damage."""
    if SUMMARY_FILE in (read_checksums(folder) or {}):
        return True
    over = (folder / SUMMARY_FILE).is_file()
    if over:
        note_unchecked(folder)
    return over


def _is_result_file(name: str) -> bool:
    """Return whether a file holds weights or a page, which no report is made from."""
    return name.endswith((".safetensors", ".html")) or name.startswith(("adapter/", "huggingface/"))


def _read_records(folder: Path, unit: str, over: bool) -> list[Record]:
    """Read the records of a run; refuse damaged ones, and fewer than the checkpoint counts.

    Raises:
        Mistake: records are lost or damaged.
    """
    path = folder / f"{unit}s.jsonl"
    records = read_records(path, unit)
    types = _ROUND_TYPES if unit == "round" else _INTERVAL_TYPES
    for number, record in enumerate(records, 1):
        wrong = [name for name, kind in types.items() if not _has_kind(record.get(name, ""), kind)]
        if wrong:
            raise Mistake(f"{path}: line {number} is damaged (it gives no {wrong[0]}); {_REMEDY}")
    kept = None if over else read_kept_files(folder / "checkpoint")
    if kept is not None:
        copy = kept.files.get(path.name, b"")
        if len(records) < kept.round or not path.read_bytes().startswith(copy):
            raise Mistake(
                f"{path}: is damaged (its first {kept.round} lines are not those that the checkpoint counts); {_REMEDY}"
            )
    return records


def _has_kind(value: Any, kind: str) -> bool:
    """Return whether a value is a whole "count", a "number", a "number?" that may be null, or a list of "objects"."""
    if kind == "objects":
        return isinstance(value, list) and all(isinstance(each, dict) for each in value)
    if value is None:
        return kind == "number?"
    return isinstance(value, int if kind == "count" else int | float) and not isinstance(value, bool)


def _read_end(folder: Path, name: str, number: int) -> dict[str, Any]:
    """Read summary.json; refuse it if its `name` is not the number of records.

    Raises:
        Mistake: it is damaged, or records are lost.
    """
    path = folder / SUMMARY_FILE
    end = read_json(path)
    types = _SUMMARY_TYPES if name == "rounds" else {"steps": "count", "loss": "number?"}
    wrong = (
        [key for key, kind in types.items() if not _has_kind(end.get(key, ""), kind)]
        if isinstance(end, dict)
        else [name]
    )
    if wrong:
        raise Mistake(f"{path}: is damaged (it gives no {wrong[0]}); {_REMEDY}")
    if end[name] != number:
        raise Mistake(f"{folder}: {path.name} counts {end[name]} {name}, and the records {number}; {_REMEDY}")
    found: dict[str, Any] = end
    return found


def _read_objects(path: Path, names: Sequence[str]) -> list[dict[str, Any]]:
    """Read a list of objects that have these names from a JSON file; nothing where there is no such file.

    Raises:
        Mistake: it is damaged.
    """
    found = read_json(path) if path.is_file() else []
    if not (_has_kind(found, "objects") and all(set(names) <= each.keys() for each in found)):
        raise Mistake(f"{path}: is damaged (it is not a list of objects with {', '.join(names)}); {_REMEDY}")
    objects: list[dict[str, Any]] = found
    return objects


@contextmanager
def mistakes_about_shapes(folder: Path) -> Iterator[None]:
    """Turn errors over values of another kind, in files that have no checksum, into a sentence about the folder.

    Raises:
        Mistake: an earlier version wrote the folder, or the run is not over, and a file in it is damaged.
    """
    try:
        yield
    except Mistake:
        raise
    except (ValueError, KeyError, TypeError, AttributeError, IndexError, ArithmeticError) as error:
        if SUMMARY_FILE in (read_checksums(folder) or {}):
            raise  # the files are what the run wrote
        kind = type(error).__name__
        raise Mistake(f"{folder}: a file in it is damaged ({kind}: {reason(error)}); {_REMEDY}") from error


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
    if not path.is_file():
        raise Mistake(f"{path.parent}: is not a run folder, since it has no {path.name}")
    try:
        return path.read_text(encoding="utf-8")
    except OSError as error:
        raise Mistake(f"{path}: cannot be read ({error.strerror})") from error
    except UnicodeDecodeError as error:
        raise Mistake(f"{path}: is damaged ({reason(error)}); {_REMEDY}") from error


def read_json(path: Path) -> Any:
    """Return the value of a JSON file in a run folder; refuse a damaged file."""
    text = _read_text(path)
    try:
        return json.loads(text)
    except (ValueError, RecursionError) as error:
        raise Mistake(f"{path}: is damaged ({reason(error)}); {_REMEDY}") from error
