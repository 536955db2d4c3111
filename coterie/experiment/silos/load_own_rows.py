"""Read the rows that a silo's configuration names.

Which of them are for testing, the silo says by a column, or it follows from a digest of each row (see
`coterie.data.digest_split`); the other sources have a split of their own.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import torch

from coterie import data
from coterie.core.digests import digest
from coterie.core.errors import Mistake, few, mistakes_in
from coterie.core.examples import Examples
from coterie.core.toml_text import toml_text
from coterie.data import digest_split
from coterie.data.label_columns import read_task_labels
from coterie.data.origins import digest_source
from coterie.data.partitions.natural import rows_by_client
from coterie.data.raw_table import (
    RawTable,
    choose_features,
    read_client_ids,
    read_complete_column,
    read_feature,
    read_split,
)
from coterie.data.source import Source
from coterie.data.sources.csv import read_csv
from coterie.data.sources.npz import npz, read_npz
from coterie.data.sources.parquet import read_parquet
from coterie.experiment.silos.dealt_rows import read_dealt_rows
from coterie.experiment.silos.own_rows import OwnRows
from coterie.experiment.silos.silo_file import DEALT, TABLE_SOURCES, SiloFile


def load_own_rows(file: SiloFile, rng_seed: int = 0, task: str | None = None) -> OwnRows:
    """Read the rows that a silo file names.

    Args:
        file: what silo.toml says.
        rng_seed: for a source that draws at random.
        task: the kind of task, where the experiment names one: of a regression, labels are numbers to predict.

    Raises:
        Mistake: the data are missing or damaged, or cannot be used; the sentence says what to do.
    """
    with mistakes_in("data"):
        if task is not None and file.source != DEALT and "task" in data.sources.options(file.source, file.folders):
            file = replace(file, data={**file.data, "task": task})
        if file.source in TABLE_SOURCES:
            return _load_table(file)
        if file.source == DEALT:
            source, record = read_dealt_rows(Path(file.data["path"]))
            return _rows_of(file, source, dict(zip(record.clients, record.places, strict=True)))
        if file.source == "npz":
            return _rows_of(file, _load_archive(file))
        taken = data.sources.options(file.source, file.folders)
        given = dict(file.data) | ({"rng_seed": rng_seed} if "rng_seed" in taken else {})
        return _rows_of(file, data.load(file.source, folders=file.folders, **given))


def _rows_of(file: SiloFile, source: Source, places: Mapping[str, int] | None = None) -> OwnRows:
    """Return the rows of a source that gives its examples at once."""
    if source.clients is not None:
        raise Mistake(
            "it makes its clients on demand, so no silo holds them; name a file of rows",
            key="source",
            value=file.source,
        )
    source = _choose_clients(file, source)
    ids = places or dict.fromkeys(rows_by_client(source.groups or ()))
    whole = digest(repr(sorted(digest_source(source).items())).encode())
    return OwnRows(file, source, (), frozenset(), None, ids, whole)


def _choose_clients(file: SiloFile, source: Source) -> Source:
    """Return a source with the rows of the clients that the silo hosts, each with its client's id."""
    if source.groups is None:
        if file.clients is not None:
            raise Mistake("its rows carry no client ids; leave it out", key="clients", value=list(file.clients))
        client = file.client or file.name
        tests = None if source.test is None else [client] * len(source.test)
        return replace(source, groups=[client] * len(source.train), test_groups=tests)
    if file.client is not None:
        raise Mistake("the rows carry client ids of their own; leave `client` out at the top of the file")
    if file.clients is None:
        return source
    known = set(source.groups)
    unknown = [client for client in file.clients if client not in known]
    if unknown:
        raise Mistake(
            f"there is no client {toml_text(unknown[0])}; there are {few(sorted(known), 10)}",
            key="clients",
            value=list(file.clients),
        )
    train, groups = _rows_of_clients(source.groups, file.clients)
    test, test_groups = _rows_of_clients(source.test_groups or (), file.clients)
    return replace(
        source,
        train=source.train.take(torch.tensor(train)),
        groups=groups,
        test=source.test.take(torch.tensor(test)) if source.test is not None and test else None,
        test_groups=test_groups or None,
    )


def _rows_of_clients(owners: Sequence[str], clients: Sequence[str]) -> tuple[list[int], list[str]]:
    """Return the rows of some clients, and the client of each."""
    rows = [k for k, owner in enumerate(owners) if owner in clients]
    return rows, [owners[k] for k in rows]


def _load_archive(file: SiloFile) -> Source:
    """Return the source of an .npz; where it marks no test rows, they follow from a digest of each row."""
    options = dict(file.data)
    column, fraction = options.get("test_column", "test"), options.get("test_fraction", 0.2)
    source = npz(**options)
    if source.test is None or read_npz(Path(options["path"]), [], {}, [column]):
        return source
    whole = Examples(source.train.x, source.train.y)  # both parts share one pool, in the order of the file
    assert source.train.rows is not None
    assert source.test.rows is not None
    parts = digest_split.split_by_digest(digest_split.contents_of_examples(whole), fraction)
    train, test = (whole.take(torch.from_numpy(part)) for part in parts)
    if source.groups is None:
        return replace(source, train=train, test=test)
    order = torch.cat([source.train.rows, source.test.rows]).argsort().tolist()
    ids = [[*source.groups, *(source.test_groups or ())][k] for k in order]
    groups, test_groups = ([ids[k] for k in part] for part in parts)
    return replace(source, train=train, test=test, groups=groups, test_groups=test_groups)


def _load_table(file: SiloFile) -> OwnRows:
    """Read a csv or parquet file as columns, labels and row numbers."""
    given = dict(file.data)
    path = Path(given["path"])
    table = read_parquet(path) if file.source == "parquet" else RawTable(str(path), read_csv(path))
    label, client, test_column = given["label_column"], given.get("client_column"), given.get("test_column")
    several = given.get("label_columns")
    key = "label_column" if several is None else "label_columns"
    uses: dict[str | None, str] = dict.fromkeys([label] if several is None else several, key)
    uses |= {client: "client_column", test_column: "test_column"}
    names = choose_features(table, given.get("feature_columns"), uses)
    unknown = [name for name in file.coded_columns if name not in names]
    if unknown:
        raise Mistake(
            f"it names {toml_text(unknown[0])}, which is not a feature column; there are {few(names, 10)}",
            key="coded_columns",
        )
    labels = read_task_labels(table, label, several, given.get("task")) if given["labels"] else None
    number = len(next(iter(table.columns.values())))
    if test_column is not None:
        train, test = read_split(table, test_column)
    elif labels is None:
        train, test = np.arange(number), np.arange(0)
    else:
        kept = {name: cells for name, cells in table.columns.items() if name in (*names, *(several or [label]))}
        train, test = digest_split.split_by_digest(digest_split.contents_of_columns(kept), given["test_fraction"])
    columns = [read_feature(table, name, train, coded=name in file.coded_columns) for name in names]
    ids = None
    if client is not None:
        ids = read_client_ids(str(path), client, read_complete_column(table, "client_column", client))
    y = None if labels is None or labels.y is None else torch.from_numpy(labels.y)
    numbered = Examples(torch.arange(number), y)
    parts = [numbered.take(torch.from_numpy(part)) for part in (train, test)]
    source = Source(
        file.source,
        parts[0],
        parts[1] if len(test) else None,
        None if labels is None else labels.num_classes,
        groups=None if ids is None else [ids[k] for k in train],
        test_groups=None if ids is None or not len(test) else [ids[k] for k in test],
        label_names=None if labels is None else labels.names,
    )
    source = _choose_clients(file, source)
    used = {name: cells for name, cells in table.columns.items() if name in (*names, *filter(None, uses))}
    all_rows = digest(b"\x1e".join(digest_split.contents_of_columns(used)))
    clients = dict.fromkeys(rows_by_client(source.groups or ()))
    return OwnRows(file, source, columns, frozenset(table.categories), labels, clients, all_rows)
