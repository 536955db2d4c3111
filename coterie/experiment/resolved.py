"""A run's config.toml: the settings with nothing left open, as text that is itself a valid input."""

from __future__ import annotations

import platform
from dataclasses import replace
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any, Protocol

import tomlkit

from coterie.experiment.engine import Machine
from coterie.experiment.refuse import full
from coterie.experiment.settings import Settings, model_names

PACKAGES = ("coterie", "torch", "numpy", "safetensors")


def versions(machine: Machine) -> dict[str, str]:
    """What a run was made with."""
    return {"python": platform.python_version(), **{p: _version(p) for p in PACKAGES}, "machine": str(machine)}


def _version(package: str) -> str:
    try:
        return version(package)
    except PackageNotFoundError:  # run from a folder of sources that is not installed
        return "unknown"


def text(settings: Settings, written_with: dict[str, str]) -> str:
    """The content of config.toml.

    Functions of the user's own are found again from anywhere, since [origin] says where to look.
    """
    document: dict[str, Any] = settings.tables()
    sources = [settings.data["source"], settings.seed_set.get("source") or ""]
    if any(":" in name for name in [*sources, settings.algorithm["name"], *model_names(settings)]):
        document["origin"] = {"folders": [str(folder) for folder in settings.folders]}
    document["versions"] = written_with
    return (
        "# Every setting of this run, defaults included. `coterie run` on this file runs it again.\n"
        + tomlkit.dumps(document)
    )


def adopting(settings: Settings, earlier: Settings) -> Settings:
    """The settings with what they leave open as an earlier run has resolved it: a resumed run never chooses anew."""
    engine = replace(
        settings.engine,
        name=earlier.engine.name if settings.engine.name == "auto" else settings.engine.name,
        device=earlier.engine.device if settings.engine.device == "auto" else settings.engine.device,
        compile=earlier.engine.compile if settings.engine.compile == "auto" else settings.engine.compile,
        workers=earlier.engine.workers if settings.engine.workers == "auto" else settings.engine.workers,
        chunk=earlier.engine.chunk if settings.engine.chunk is None else settings.engine.chunk,
    )
    left_open = {k: settings.data[k] or earlier.data[k] for k in ("partition", "standardize")}
    weights = _gone(settings.pretrain.weights, earlier.pretrain.weights)
    pretrain = replace(settings.pretrain, weights=weights)
    return replace(settings, engine=engine, data=settings.data | left_open, pretrain=pretrain)


def _gone(weights: Any, earlier: Any) -> Any:
    """The weights, or those that the run began with: where none are named, or where a file of that name is no more."""
    names = [Path(w) for w in (weights, earlier) if isinstance(w, str)]
    gone = len(names) == 2 and names[0].name == names[1].name and not any(name.exists() for name in names)
    return earlier if weights is None or gone else weights


class Tabled(Protocol):
    """Settings of some kind."""

    def tables(self) -> dict[str, Any]:
        """As nested dicts."""


def difference(settings: Tabled, other: Tabled) -> list[str]:
    """The full names of the keys in which two settings differ."""
    a, b = _flat(settings.tables()), _flat(other.tables())
    return sorted(name for name in a.keys() | b.keys() if a.get(name) != b.get(name))


def _flat(tables: dict[str, Any]) -> dict[str, Any]:
    flat: dict[str, Any] = {}
    for name, value in tables.items():
        flat |= {full(name, k): v for k, v in value.items()} if isinstance(value, dict) else {name: value}
    return flat
