"""The points of a grid: the settings of each run of a sweep, and the name of its folder."""

from __future__ import annotations

import hashlib
import itertools
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any
from urllib.parse import quote

from coterie.core.errors import Mistake
from coterie.experiment.settings import Settings, load_settings
from coterie.report.seed_groups import RNG_SEED
from coterie.sweep.axes import Axis, value_text

MAX_POINTS = 10_000
"""How many runs a sweep may have."""
_MAX_NAME_BYTES = 200
"""File systems take 255, and endings need room."""


@dataclass(frozen=True)
class Point:
    """One run of a sweep.

    Attributes:
        name: of its folder, such as "lr=0.1,rng_seed=0".
        values: the full name of each key that tells runs apart -> its value.
        overrides: all that the command line changes in the file.
        settings: what is run.
    """

    name: str
    values: Mapping[str, Any]
    overrides: Sequence[str]
    settings: Settings

    @property
    def name_without_seed(self) -> str:
        """The name that the runs of all rng seeds share."""
        names = short_names([*self.values])
        return point_name({names[key]: value for key, value in self.setting.items()})

    @property
    def setting(self) -> dict[str, Any]:
        """The values without the rng seed."""
        return {key: value for key, value in self.values.items() if key != RNG_SEED}


def make_points(file: Path, axes: Sequence[Axis]) -> list[Point]:
    """Return the points of a grid, in the order of the axes; the last one varies fastest.

    Raises:
        Mistake: a point's settings cannot be used, the grid has one point or too many, or two points share a name.
    """
    varied = [axis for axis in axes if axis.is_varied]
    number = 1
    for axis in axes:
        number *= len(axis.values)
    if number < 2:
        raise Mistake("a sweep needs a key with two values or more, such as lr=0.1,0.2; `coterie run` runs one point")
    if number > MAX_POINTS:
        raise Mistake(f"the grid has {number:,} points, and a sweep runs at most {MAX_POINTS:,}; give fewer values")
    names = short_names([axis.key for axis in varied])
    points = []
    for places in itertools.product(*(range(len(axis.values)) for axis in axes)):
        chosen = list(zip(axes, places, strict=True))
        values = {axis.key: axis.values[k] for axis, k in chosen if axis.is_varied}
        overrides = [f"{axis.key}={axis.texts[k]}" for axis, k in chosen]
        name = point_name({names[key]: value for key, value in values.items()})
        points.append(Point(name, values, overrides, _load(file, overrides, name)))
    shared = [name for name, number in Counter(point.name.lower() for point in points).items() if number > 1]
    if shared:
        raise Mistake(
            f"{shared[0]}: two points would have this folder, since some disks are blind to case; leave one out"
        )
    return points


def _load(file: Path, overrides: Sequence[str], name: str) -> Settings:
    """Return the settings of a point. What the file leaves open about processes and threads is one of each.

    Raises:
        Mistake: they cannot be used.
    """
    try:
        settings = load_settings(file, overrides)
    except Mistake as mistake:
        raise Mistake(f"{mistake} (in the run {name})") from mistake
    engine = settings.engine
    workers = 1 if engine.workers == "auto" else engine.workers
    threads = 1 if engine.threads == "auto" else engine.threads
    return replace(settings, engine=replace(engine, workers=workers, threads=threads))


def short_names(keys: Sequence[str]) -> dict[str, str]:
    """Return each key's name without its table, where no other key has the same.

    >>> short_names(["algorithm.lr", "model.name", "algorithm.name"])
    {'algorithm.lr': 'lr', 'model.name': 'model.name', 'algorithm.name': 'algorithm.name'}
    """
    last = Counter(key.rpartition(".")[2] for key in keys)
    return {key: own if last[own := key.rpartition(".")[2]] == 1 else key for key in keys}


def point_name(values: Mapping[str, Any]) -> str:
    """Return the name of a point's folder; one that is too long is cut, and ends in "=" and a digest of the whole.

    >>> point_name({"lr": 0.1, "hidden": [32, 32], "weights": "runs/a b"})
    'lr=0.1,hidden=[32,32],weights=runs%2Fa%20b'
    """
    name = ",".join(f"{key}={_quote(value)}" for key, value in values.items())
    if len(name) <= _MAX_NAME_BYTES:
        return name
    return f"{name[: _MAX_NAME_BYTES - 17]}={hashlib.sha256(name.encode()).hexdigest()[:16]}"


def _quote(value: Any) -> str:
    text = value_text(value)
    return quote(text, safe="" if isinstance(value, str) else "[]{},=+")
