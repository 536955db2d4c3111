"""What `coterie deploy check` looks at: the silo's certificate, policy, data, disk, device and connection."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

from coterie.core.errors import Mistake
from coterie.experiment.resolve_engine import this_machine
from coterie.experiment.settings import load_settings
from coterie.experiment.silos.check_silo import Expected, Finding, check_silo
from coterie.experiment.silos.judge_run import judge_by_policy
from coterie.experiment.silos.load_own_rows import load_own_rows
from coterie.experiment.silos.silo_folder import SiloFolder, load_silo_folder
from coterie.experiment.silos.silo_settings import settings_to_send, task_in
from coterie.silos.project import read_kit
from coterie.silos.try_connection import try_connection


def check_folder(folder: Path, experiment: Path | None = None) -> list[Finding]:
    """Return what was found at a silo. Nothing is written, and no row leaves.

    Args:
        folder: the silo's.
        experiment: an experiment file that its model and policy are tried on.

    Raises:
        Mistake: silo.toml, policy.toml or the experiment file cannot be used.
    """
    silo = load_silo_folder(folder)
    tables = None if experiment is None else settings_to_send(load_settings(experiment))
    findings = [_find("certificate", lambda: _describe_certificate(folder))]
    expected = Expected(tables=tables, max_bytes=silo.policy.max_message_bytes)
    findings += check_silo(silo.file, folder, this_machine(), expected)
    if tables is not None and all(each.ok for each in findings if each.what == "data"):
        findings.append(_judge(silo, tables))
    if findings[0].ok:
        findings.append(Finding("connection", *try_connection(folder)))
    return findings


def _find(what: str, describe: Callable[[], str]) -> Finding:
    try:
        return Finding(what, True, describe())
    except Mistake as mistake:
        return Finding(what, False, str(mistake))


def _describe_certificate(folder: Path) -> str:
    invitation, ends = read_kit(folder)
    return f"{invitation.silo} of the project {invitation.name}, until {ends:%Y-%m-%d}"


def _judge(silo: SiloFolder, tables: dict[str, Any]) -> Finding:
    refused = judge_by_policy(silo.policy, "check")(tables, load_own_rows(silo.file, task=task_in(tables)))
    asks = {"always": "each time", "new runs": "once", "never": ""}[silo.policy.approve]
    then = f"a person must approve it {asks}" if asks else "nobody need approve it"
    then += ", and its facts before that" * silo.policy.approve_facts
    return Finding("policy", not refused, "; ".join(refused) or f"it allows the experiment, and {then}")
