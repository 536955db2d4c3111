"""Hand each silo of a rehearsal the rows that a simulation of the same file deals to its clients."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch

from coterie import data
from coterie.core.errors import Mistake
from coterie.core.examples import Examples
from coterie.core.files import write_atomic
from coterie.core.toml_text import toml_text
from coterie.data.source import Source
from coterie.experiment.load_data import deal_rows
from coterie.experiment.settings import Settings
from coterie.experiment.silos.dealt_rows import DealtRecord, DealtRows, write_dealt_rows
from coterie.experiment.silos.silo_file import DEALT, SILO_FILE
from coterie.track.file_writing import disk_mistakes

ROWS_FILE = "rows.safetensors"


@dataclass(frozen=True)
class Dealing:
    """What was handed out.

    Attributes:
        settings: with the partition and the standardisation that the source suggests.
        hosts: client -> its silo, in the order of the clients.
        files: silo -> its silo.toml.
    """

    settings: Settings
    hosts: Mapping[str, str]
    files: Mapping[str, Path]


def deal_to_silos(settings: Settings, silos: Sequence[str], folder: Path) -> Dealing:
    """Write a folder for each silo, with its clients' rows and its silo.toml.

    Clients go to silos in their order, in blocks that differ by one at most. A client's own test rows go with it. Test
    rows of no client in particular are dealt out evenly, so that sums over the silos are those over all of them.

    Args:
        settings: of the experiment file.
        silos: their names; no more than there are clients.
        folder: where the silos' folders are made, each of the silo's name.

    Raises:
        Mistake: there are more silos than clients, data are missing, or the folder cannot be written.
    """
    settings, source, clients = deal_rows(settings)
    ids = list(clients)
    if not 1 <= len(silos) <= len(ids):
        raise Mistake(f"{len(silos)} silos cannot host {len(ids)} clients; name from 1 to {len(ids)} silos")
    own, common = _test_rows(source, ids)
    if common is not None and settings.data["standardize"] == "local":
        raise Mistake(
            "the test rows belong to no client, and silos share them out, so each part would get a scale of its own; "
            'choose "federated", or a partition whose clients have test rows',
            key="standardize",
            value="local",
            table="data",
        )
    blocks = [list(block) for block in np.array_split(np.arange(len(ids)), len(silos))]
    shares = [None] * len(silos) if common is None else [_share(common, k, len(silos)) for k in range(len(silos))]
    hosts, files = dict[str, str](), dict[str, Path]()
    for silo, block, share in zip(silos, blocks, shares, strict=True):
        names = [ids[k] for k in block]
        record = DealtRecord(
            clients=tuple(names),
            places=tuple(int(k) for k in block),
            num_classes=source.num_classes,
            label_names=None if source.label_names is None else tuple(source.label_names),
            columns=tuple(source.columns),
        )
        tests = {k: own[name] for k, name in enumerate(names) if name in own}
        with disk_mistakes(folder / silo):
            rows = DealtRows(record, [clients[name] for name in names], tests, share)
            write_dealt_rows(folder / silo / ROWS_FILE, rows)
            write_atomic(folder / silo / SILO_FILE, _silo_toml(settings, silo).encode())
        hosts |= dict.fromkeys(names, silo)
        files[silo] = folder / silo / SILO_FILE
    return Dealing(settings, hosts, files)


def _test_rows(source: Source, ids: Sequence[str]) -> tuple[Mapping[str, Examples], Examples | None]:
    """Return each client's own test rows, and those of no client; as a simulation evaluates them."""
    found = data.own_test(source, ids)
    if source.test is None:
        return {}, None
    if not all(client in found for client in ids):
        return {}, source.test
    others = [k for k, client in enumerate(source.test_groups or ()) if client not in found]
    return {client: found[client] for client in ids}, source.test.take(torch.tensor(others)) if others else None


def _share(examples: Examples, k: int, number: int) -> Examples | None:
    """Return the k-th of `number` even parts of some examples; None if it is empty."""
    rows = np.array_split(np.arange(len(examples)), number)[k]
    return examples.take(torch.from_numpy(rows)) if len(rows) else None


def _silo_toml(settings: Settings, silo: str) -> str:
    """Return the silo.toml of a rehearsal."""
    lines = [
        "# Written for a rehearsal: the rows that the simulation deals to this silo's clients.",
        f"name = {toml_text(silo)}",
        "[data]",
        f"source = {toml_text(DEALT)}",
        f"path = {toml_text(ROWS_FILE)}",
        "[engine]",
        f"device = {toml_text(settings.engine.device)}",
        f"threads = {toml_text(settings.engine.threads)}",
    ]
    lines += ["[origin]", f"folders = {json.dumps([str(folder) for folder in settings.folders])}"]
    path = settings.seed_set.get("path")
    if path is not None:
        lines += ["[seed_set]", f"path = {toml_text(str(path))}"]
    return "\n".join(lines) + "\n"
