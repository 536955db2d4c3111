"""The exchange between a coordinator and silos by hand: what a carrier would carry, in one process."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

from coterie.core.engine import Engine
from coterie.core.packing import pack, unpack
from coterie.experiment.build_experiment import Experiment
from coterie.experiment.engine_choice import Machine
from coterie.experiment.settings import Settings, model_names, parse_settings
from coterie.experiment.silos.facts import read_facts
from coterie.experiment.silos.load_own_rows import load_own_rows
from coterie.experiment.silos.merge_facts import Merged, merge_facts, read_agreement
from coterie.experiment.silos.own_rows import OwnRows
from coterie.experiment.silos.plans import (
    coordinator_experiment,
    needs_scale,
    scale_of,
    silo_experiment,
    sum_clients,
)
from coterie.experiment.silos.silo_file import load_silo_file
from coterie.experiment.silos.silo_settings import complete_data, models_by_client, settings_to_send

MACHINE = Machine(cores=1, memory=2**34, device="cpu", compiler=False)


class Ends(NamedTuple):
    """The coordinator's experiment, and each silo's."""

    coordinator: Experiment
    silos: dict[str, Experiment]
    merged: Merged
    rows: dict[str, OwnRows]


def settings_of(folder: Path, **tables: Any) -> Settings:
    """Settings with small defaults; folder: where functions of a test's own are looked for."""
    raw = {
        "rounds": 2,
        "rng_seed": 3,
        "model": {"name": "mlp", "hidden": [4]},
        "algorithm": {"name": "fedavg", "lr": 0.1},
    }
    raw |= {"engine": {"name": "sequential", "threads": 1, "compile": False}}
    return parse_settings(raw | tables, [folder])


def through_json(value: Any) -> Any:
    """The value as it arrives at the other end."""
    return json.loads(json.dumps(value))


def load_rows(files: Mapping[str, Path]) -> dict[str, OwnRows]:
    return {silo: load_own_rows(load_silo_file(path)) for silo, path in files.items()}


def exchange(settings: Settings, files: Mapping[str, Path]) -> Ends:
    """Facts up, the agreement down, sums up, the scale down; then both ends are made."""
    rows = load_rows(files)
    merged = merge_facts({silo: read_facts(through_json(r.facts().to_record()), silo) for silo, r in rows.items()})
    agreement = read_agreement(through_json(merged.agreement.to_record()))
    assert agreement == merged.agreement
    scale = None
    if needs_scale(complete_data(settings, agreement)):
        sums = {c: unpack(pack(s)) for r in rows.values() for c, s in sum_clients(r, agreement).items()}
        scale = scale_of(sums, merged)
    coordinator = coordinator_experiment(settings, merged, scale, MACHINE)
    tables = through_json(settings_to_send(coordinator.settings))
    several = len(model_names(coordinator.settings)) > 1
    models = models_by_client(coordinator.settings, [c.client for c in merged.clients])
    silos = {}
    for silo, r in rows.items():
        own = {client: models[client] for client in r.clients} if several else None
        silos[silo] = silo_experiment(tables, r, agreement, scale, MACHINE, own)
    return Ends(coordinator, silos, merged, rows)


__all__ = ["MACHINE", "Ends", "Engine", "exchange", "load_rows", "settings_of", "through_json"]
