"""What a silo checks before anything is trained: its data, test rows, disk, clock, device, and the longest message."""

from __future__ import annotations

import shutil
import time
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, NamedTuple

from coterie.core import tree
from coterie.core.errors import Mistake
from coterie.experiment.build_experiment import Experiment
from coterie.experiment.engine_choice import Machine
from coterie.experiment.resolve_engine import check_engine
from coterie.experiment.silos.load_own_rows import load_own_rows
from coterie.experiment.silos.merge_facts import Agreement, merge_facts
from coterie.experiment.silos.own_rows import OwnRows
from coterie.experiment.silos.plans import needs_scale, scale_of, silo_experiment, sum_clients
from coterie.experiment.silos.silo_file import SiloFile
from coterie.experiment.silos.silo_settings import (
    complete_data,
    leave_out_sent_weights,
    settings_at_silo,
    task_in,
)
from coterie.experiment.tables import Engine
from coterie.silos.message import MAX_BYTES

MAX_CLOCK_SECONDS = 60
"""How far a silo's clock may be from the coordinator's: certificates and logs are read by it."""
KEPT_STATES = 3
"""How many versions of a client's state a silo keeps, and an answer beside them, in the size of models; rounded up."""
SPARE_BYTES = 2**28
"""What must be free on a silo's disk beside them."""


class Finding(NamedTuple):
    """What was checked, whether it is well, and a sentence: what was found, or what to do."""

    what: str
    ok: bool
    sentence: str


@dataclass(frozen=True)
class Expected:
    """What a silo is checked against; whatever is None is not checked.

    Attributes:
        tables: the settings that the coordinator would send; see `settings_to_send`.
        agreement: what the silos have agreed on, if they have.
        now: the coordinator's clock, seconds since 1970.
        max_bytes: the longest message that the silo's policy lets leave.
    """

    tables: Mapping[str, Any] | None = None
    agreement: Agreement | None = None
    now: float | None = None
    max_bytes: int = MAX_BYTES


def check_silo(file: SiloFile, folder: Path, machine: Machine, expected: Expected | None = None) -> list[Finding]:
    """Return what was found at a silo, in the order in which it is to be mended. Nothing is written, nothing leaves.

    Args:
        file: the silo's own configuration.
        folder: where the silo keeps its runs.
        machine: the silo's.
        expected: see there.
    """
    expected = expected or Expected()
    findings = [_check_clock(expected.now)] if expected.now is not None else []
    findings.append(_check_device(file, machine))
    rows, experiment = None, None
    try:
        rows = load_own_rows(file, task=task_in(expected.tables))
        findings += [_describe_rows(rows), _check_tests(rows)]
    except Mistake as mistake:
        hint = "; check with --experiment FILE, which says so" if _needs_task(mistake, expected) else ""
        findings.append(Finding("data", False, f"{mistake}{hint}"))
    if rows is not None and (expected.agreement is not None or expected.tables is not None):
        finding, experiment = _check_fit(rows, machine, expected)
        findings.append(finding)
    nbytes = 0 if experiment is None else max(tree.nbytes(weights) for weights in experiment.plan.initial.values())
    findings.append(_check_disk(folder, nbytes, 0 if rows is None else len(rows.clients)))
    if experiment is not None and rows is not None:
        findings.append(_check_message(nbytes * len(rows.clients), expected.max_bytes))
    return findings


def _needs_task(mistake: Mistake, expected: Expected) -> bool:
    """Return whether labels cannot be read since nobody said that they are numbers to predict."""
    return expected.tables is None and "regression" in mistake.sentence


def _check_clock(now: float) -> Finding:
    behind = now - time.time()
    if abs(behind) <= MAX_CLOCK_SECONDS:
        return Finding("clock", True, f"it is {abs(behind):.0f} seconds from the coordinator's")
    order = "behind" if behind > 0 else "ahead of"
    return Finding(
        "clock",
        False,
        f"it is {abs(behind):,.0f} seconds {order} the coordinator's, and {MAX_CLOCK_SECONDS} are allowed; set it by a "
        "time server",
    )


def _check_device(file: SiloFile, machine: Machine) -> Finding:
    try:
        check_engine(Engine(device=file.device, threads=file.threads), machine)
    except Mistake as mistake:
        return Finding("device", False, str(mistake.in_table("engine")))
    device = machine.device if file.device == "auto" else file.device
    return Finding("device", True, f"clients work on {device}")


def _describe_rows(rows: OwnRows) -> Finding:
    facts = rows.facts()
    train = sum(client.train for client in facts.clients)
    clients = "1 client" if len(facts.clients) == 1 else f"{len(facts.clients)} clients"
    return Finding("data", True, f"{train:,} rows to train on, of {clients}; SHA-256 {facts.digest[:16]}")


def _check_tests(rows: OwnRows) -> Finding:
    facts = rows.facts()
    number = facts.common_test + sum(client.test for client in facts.clients)
    without = [client.client for client in facts.clients if not client.test]
    if number and (facts.common_test or not without):
        return Finding("test rows", True, f"{number:,} rows to test on")
    who = "it has" if not number else f"client {without[0]} has"
    return Finding(
        "test rows",
        False,
        f"{who} no rows to test on, so nothing says how good a model is here; mark some by data.test_column, or give "
        "data.test_fraction",
    )


def _check_fit(rows: OwnRows, machine: Machine, expected: Expected) -> tuple[Finding, Experiment | None]:
    """Check the rows against what was agreed, and try the model on them; without an agreement, as if alone."""
    try:
        alone = merge_facts({rows.file.name: rows.facts()})
        agreement = expected.agreement or alone.agreement
        if expected.agreement is None and agreement.num_classes == 1:
            agreement = replace(agreement, num_classes=2)  # the other silos have the others
        shape = f"examples have the shape {list(agreement.shape)}"
        if expected.tables is None:
            rows.examples(agreement)
            return Finding("shape", True, f"{shape}, as the silos agreed"), None
        scale = None
        if needs_scale(complete_data(settings_at_silo(expected.tables, rows.file), agreement)):
            # the sums of this silo alone do for a trial
            scale = scale_of(sum_clients(rows, agreement), replace(alone, agreement=agreement))
        experiment = silo_experiment(leave_out_sent_weights(expected.tables), rows, agreement, scale, machine)
    except Mistake as mistake:
        return Finding("shape", False, str(mistake)), None
    names = ", ".join(experiment.names.values())
    return Finding("shape", True, f"{shape}, and the model {names} takes them"), experiment


def _check_disk(folder: Path, nbytes: int, clients: int) -> Finding:
    there = next(path for path in (folder.absolute(), *folder.absolute().parents) if path.exists())
    free, needed = shutil.disk_usage(there).free, SPARE_BYTES + (KEPT_STATES + 1) * nbytes * max(clients, 1)
    sentence = f"{free / 2**30:,.1f} GiB are free in {there}"
    if free >= needed:
        return Finding("disk", True, sentence)
    return Finding("disk", False, f"{sentence}, and a run needs {needed / 2**30:,.1f}; make room, or use another disk")


def _check_message(nbytes: int, most: int) -> Finding:
    sentence = f"the longest message will have about {nbytes / 2**20:,.1f} MiB"
    if nbytes <= most:
        return Finding("message", True, sentence)
    return Finding(
        "message",
        False,
        f"{sentence}, and {most / 2**20:,.1f} are allowed; raise max_message_bytes in policy.toml, or choose a smaller "
        "model",
    )
