"""The two ends of an experiment between silos: the coordinator's, which holds no row, and a silo's, with its own.

Both are made of the same parts as a simulation. Given the same rows, they have its clients in its order, its numbers of
examples, its initial weights and its inputs, bit for bit.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch

from coterie.core.errors import Mistake, mistakes_in
from coterie.core.tree import Tree
from coterie.data.origins import Origins
from coterie.data.standardize import (
    Scale,
    Standardized,
    Sums,
    choose_columns,
    compute_scale,
    standardize,
    standardize_by,
    sum_columns,
)
from coterie.data.unusual_data import remarks_on_data
from coterie.experiment.algorithm_options import complete_algorithm
from coterie.experiment.build_experiment import Experiment, Prepared, assemble_experiment
from coterie.experiment.choose_seed_set import choose_seed_set
from coterie.experiment.engine_choice import Machine
from coterie.experiment.settings import Settings
from coterie.experiment.silos.merge_facts import Agreement, Merged
from coterie.experiment.silos.own_rows import OwnExamples, OwnRows
from coterie.experiment.silos.silo_settings import complete_data, name_models, refuse_simulation, settings_at_silo
from coterie.experiment.silos.stand_ins import make_stand_ins
from coterie.loop.balance_classes import balance_classes
from coterie.objectives import kinds
from coterie.silos.counts import CountedClients


def coordinator_experiment(
    settings: Settings,
    merged: Merged,
    scale: Scale | None,
    machine: Machine,
    start_folder: Path | None = None,
) -> Experiment:
    """Return the coordinator's experiment. Its plan knows how many examples each client has, and holds none.

    Test rows are at the silos, so the plan has none either. `Experiment.clients` are stand-ins with the right counts
    and labels, which describe the clients in the run folder.

    Args:
        settings: of the experiment file.
        merged: what all silos agree on.
        scale: from `scale_of`, where the columns are standardised by the federated exchange; else None.
        machine: the coordinator's.
        start_folder: see `build_experiment`.

    Raises:
        Mistake: the settings mean nothing between silos, or do not fit the silos' data.
    """
    refuse_simulation(settings)
    settings = name_models(complete_data(complete_algorithm(settings), merged.agreement), merged)
    stand_ins = make_stand_ins(merged, settings.data["source"])
    ready = standardize_own(stand_ins, settings, scale)
    prepared = Prepared(
        settings,
        ready,
        choose_seed_set(settings, ready),
        Origins(contents={f"silo {silo}": {"rows": digest} for silo, digest in merged.digests.items()}),
        (),
    )
    experiment = _weigh_classes(assemble_experiment(prepared, machine, start_folder))
    plan = experiment.plan
    if plan.algorithm.traits.pooled:
        raise Mistake(
            "it needs all data in one place, and silos keep theirs; choose another one",
            key="name",
            value=settings.algorithm["name"],
            table="algorithm",
        )
    counts = {client: len(examples) for client, examples in plan.clients.items()}
    evaluation = replace(plan.evaluation, test=None, own=None, clients=False)  # silos measure, also for each client
    return replace(experiment, plan=replace(plan, clients=CountedClients(counts), evaluation=evaluation))


def _weigh_classes(experiment: Experiment) -> Experiment:
    """Return the experiment with "balanced" class weights as numbers, which every silo gets alike.

    Raises:
        Mistake: the silos have not counted such labels.
    """
    task = experiment.settings.task
    if task.class_weights != "balanced":
        return experiment
    kind = kinds.find_kind(task.kind or "classification")
    if kind.name not in ("classification", "binary"):
        sentence = f"silos count one class for each row, and this is a {kind.name} task; give numbers"
        raise Mistake(sentence, key="class_weights", value=task.class_weights, table="task")
    weights = balance_classes(task, kind, experiment.clients, experiment.source.num_classes)
    settings = replace(experiment.settings, task=replace(task, class_weights=weights))
    return replace(experiment, settings=settings)


def silo_experiment(
    tables: Mapping[str, Any],
    rows: OwnRows,
    agreement: Agreement,
    scale: Scale | None,
    machine: Machine,
    models: Mapping[str, str] | None = None,
    start_folder: Path | None = None,
) -> Experiment:
    """Return a silo's experiment: its plan has the clients that the silo hosts, with their rows.

    Args:
        tables: the settings as `settings_to_send` gives them. The silo's policy has allowed them: a model or an
            algorithm of the user's own is imported here, from what is installed at the silo.
        rows: the silo's.
        agreement: what all silos agree on.
        scale: see `coordinator_experiment`.
        machine: the silo's.
        models: see `settings_at_silo`.
        start_folder: where the weights lie that the coordinator has sent, for a run that starts from some.

    Raises:
        Mistake: the settings cannot be used here, or the rows do not fit them.
    """
    settings = complete_algorithm(settings_at_silo(tables, rows.file, models))
    settings = complete_data(settings, agreement)
    ready = standardize_own(rows.examples(agreement), settings, scale)
    prepared = Prepared(
        settings,
        ready,
        choose_seed_set(settings, ready),
        Origins(contents={rows.file.source: {"rows": rows.digest}}),
        remarks_on_data(ready.source, ready.clients),
    )
    return assemble_experiment(prepared, machine, start_folder)


def needs_scale(settings: Settings) -> bool:
    """Return whether the columns are standardised by the federated exchange; the settings come from `complete_data`."""
    return bool(settings.data["standardize"] == "federated")


def sum_clients(rows: OwnRows, agreement: Agreement) -> dict[str, Tree]:
    """Return each client's message for the federated exchange: three sums over its observed training values.

    They are float64 [M] each, for M columns, under "count", "total" and "squares".

    Raises:
        Mistake: there are no columns to standardise.
    """
    own = rows.examples(agreement)
    with mistakes_in("data"):
        columns = choose_columns(own.source, "federated")
    sums = {client: sum_columns(examples.tensors()[0], columns) for client, examples in own.clients.items()}
    return {client: {"count": s.count, "total": s.total, "squares": s.squares} for client, s in sums.items()}


def scale_of(sums: Mapping[str, Tree], merged: Merged) -> Scale:
    """Return mean and deviation over all clients' training values.

    They are added up in the order of the clients, so the bits are those of a simulation.

    Args:
        sums: client -> what `sum_clients` gave, as it arrived.
        merged: what all silos agree on.

    Raises:
        Mistake: a client's sums are missing, or no honest silo could have sent them.
    """
    stand_ins = make_stand_ins(merged, "silos")
    with mistakes_in("data"):
        columns = len(choose_columns(stand_ins.source, "federated"))
    pixels = 1
    for size in merged.agreement.shape[1:]:
        pixels *= size
    parts = []
    for client in merged.clients:
        problem = _sums_problem(sums.get(client.client), columns, client.train * pixels)
        if problem is not None:
            raise Mistake(f"{client.silo}: the sums of client {client.client} cannot be used: {problem}")
        given = sums[client.client]
        parts.append(Sums(given["count"], given["total"], given["squares"]))
    return compute_scale(parts)


def _sums_problem(sums: Tree | None, columns: int, values: int) -> str | None:
    """Return what is wrong with a client's sums of `values` values at most; None if they may be right."""
    if sums is None or sums.keys() != {"count", "total", "squares"}:
        return "they are missing"
    for name, x in sums.items():
        if not isinstance(x, torch.Tensor) or x.dtype != torch.float64 or list(x.shape) != [columns]:
            return f"{name} must be {columns} numbers of 64 bits"
        if not bool(x.isfinite().all()):
            return f"{name} holds a number that is not finite"
    count, squares = sums["count"], sums["squares"]
    if bool((count < 0).any() or (count > values).any() or (count != count.round()).any()):
        return f"they count other than 0 to {values} values"
    # n sum x^2 is at least (sum x)^2, up to rounding
    if bool((squares < 0).any() or (sums["total"] ** 2 > count * squares * (1 + 1e-9)).any()):
        return "their squares are too small"
    return None


def standardize_own(own: OwnExamples, settings: Settings, scale: Scale | None) -> Standardized:
    """Standardise examples by the scale of all silos, or by what needs no exchange."""
    how = settings.data["standardize"]
    with mistakes_in("data"):
        if not needs_scale(settings):
            return standardize(own.source, own.clients, how)
        columns: Sequence[int] = choose_columns(own.source, how)
    if scale is None or len(scale.mean) != len(columns) or len(scale.deviation) != len(columns):
        given = 0 if scale is None else len(scale.mean)
        raise Mistake(f"the scale has {given} columns, and the data {len(columns)}; let the coordinator start again")
    return standardize_by(own.source, own.clients, columns, scale, 8 * len(columns))
