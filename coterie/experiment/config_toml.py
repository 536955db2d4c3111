"""A run's config.toml: the settings with nothing left open, as text that is itself a valid input."""

from __future__ import annotations

import platform
from dataclasses import replace
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any, Protocol

import tomlkit

from coterie.experiment.check_values import full_name
from coterie.experiment.engine_choice import Machine
from coterie.experiment.privacy import adopt_privacy
from coterie.experiment.settings import Settings, model_names
from coterie.experiment.tables import ADAPTER, TEXT_KEYS

PACKAGES = ("coterie", "torch", "numpy", "safetensors")


def current_versions(machine: Machine) -> dict[str, str]:
    """Return the versions of Python and of packages, and the machine."""
    return {"python": platform.python_version(), **{p: _version(p) for p in PACKAGES}, "machine": str(machine)}


def _version(package: str) -> str:
    try:
        return version(package)
    except PackageNotFoundError:  # run from a folder of sources that is not installed
        return "unknown"


def format_config(settings: Settings, versions: dict[str, str]) -> str:
    """Return the content of config.toml.

    Functions of the user's own are found again from anywhere, since [origin] says where to look.
    """
    document: dict[str, Any] = settings.tables()
    sources = [settings.data["source"], settings.seed_set.get("source") or ""]
    measures = [settings.task.loss or "", *(settings.evaluate.metrics or [])]
    if any(":" in name for name in [*sources, *measures, settings.algorithm["name"], *model_names(settings)]):
        document["origin"] = {"folders": [str(folder) for folder in settings.folders]}
    document["versions"] = versions
    return (
        "# Every setting of this run, defaults included. `coterie run` on this file runs it again.\n"
        + tomlkit.dumps(document)
    )


def adopt_choices(settings: Settings, earlier: Settings) -> Settings:
    """Return the settings with what they leave open as an earlier run has it: a resumed run never chooses again."""
    engine = replace(
        settings.engine,
        name=earlier.engine.name if settings.engine.name == "auto" else settings.engine.name,
        device=earlier.engine.device if settings.engine.device == "auto" else settings.engine.device,
        compile=earlier.engine.compile if settings.engine.compile == "auto" else settings.engine.compile,
        workers=earlier.engine.workers if settings.engine.workers == "auto" else settings.engine.workers,
        threads=earlier.engine.threads if settings.engine.threads == "auto" else settings.engine.threads,
        chunk=earlier.engine.chunk if settings.engine.chunk is None else settings.engine.chunk,
    )
    left_open = {k: settings.data[k] or earlier.data[k] for k in ("partition", "standardize")}
    weights = _adopt_weights(settings.pretrain.weights, earlier.pretrain.weights)
    pretrain = replace(settings.pretrain, weights=weights)
    deploy = replace(
        settings.deploy,
        min_clients=settings.deploy.min_clients or earlier.deploy.min_clients,
        round_timeout=settings.deploy.round_timeout or earlier.deploy.round_timeout,
    )
    task = replace(settings.task, kind=settings.task.kind or earlier.task.kind)
    return replace(
        settings,
        engine=engine,
        data=settings.data | left_open,
        model=_adopt_model(settings.model, earlier.model),
        pretrain=pretrain,
        deploy=deploy,
        privacy=adopt_privacy(settings.privacy, earlier.privacy),
        task=task,
    )


def _adopt_model(model: dict[str, Any], earlier: dict[str, Any]) -> dict[str, Any]:
    """Return the keys of [model], with what they leave open about adapters and text as an earlier run has it."""
    keys = (*(("rank", "alpha", "targets") if model.get(ADAPTER) else ()), *TEXT_KEYS)
    left_open = [key for key in keys if model.get(key) is None]
    return model | {key: earlier.get(key) for key in left_open if key in model}


def complete_threads(earlier: Settings, threads_by_default: int) -> Settings:
    """Return the settings of an earlier run with the threads of each of its processes.

    An older version did not write them down: it computed with PyTorch's default, or with one in each of several
    processes. Their number decides in which order sums are taken.
    """
    if earlier.engine.threads != "auto":
        return earlier
    threads = threads_by_default if earlier.engine.workers in ("auto", 1) else 1
    return replace(earlier, engine=replace(earlier.engine, threads=threads))


def _adopt_weights(weights: Any, earlier: Any) -> Any:
    """Return the weights; or those of the earlier run, where none are named or where a file of that name is gone."""
    names = [Path(w) for w in (weights, earlier) if isinstance(w, str)]
    gone = len(names) == 2 and names[0].name == names[1].name and not any(name.exists() for name in names)
    return earlier if weights is None or gone else weights


class HasTables(Protocol):
    """Settings of a run or of a pre-training."""

    def tables(self) -> dict[str, Any]:
        """Return the settings as nested dicts."""


def find_changes(settings: HasTables, other: HasTables) -> list[str]:
    """Return the full names of the keys in which two settings differ."""
    a, b = _flatten(settings.tables()), _flatten(other.tables())
    return sorted(name for name in a.keys() | b.keys() if a.get(name) != b.get(name))


def _flatten(tables: dict[str, Any]) -> dict[str, Any]:
    flat: dict[str, Any] = {}
    for name, value in tables.items():
        flat |= {full_name(name, k): v for k, v in value.items()} if isinstance(value, dict) else {name: value}
    return flat
