"""The file of a rehearsal: the rows that a simulation deals to a silo's clients, before they are standardised.

It is a safetensors file. Its tensors are x, y, test_x, test_y; `client` and `test_client` hold, for each row, the place
of its client among those of this file, or -1 for a test row of all clients together. Its metadata are one JSON object.

Legend: N rows, M test rows.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import safetensors
import safetensors.torch
import torch
from torch import Tensor

from coterie.core.errors import Mistake, reason
from coterie.core.examples import Examples
from coterie.core.files import write_atomic
from coterie.data.feature_encoding import ColumnEncoding
from coterie.data.regular_file import require_file
from coterie.data.source import Source
from coterie.experiment.silos.facts import Number, Text, read_record

_RECORD = "rows"


@dataclass(frozen=True)
class DealtRecord:
    """What the tensors of such a file do not say.

    Attributes:
        clients: ids. places: of each among all clients of the experiment.
        num_classes, label_names, columns: see `coterie.data.source.Source`.
    """

    clients: tuple[Text, ...]
    places: tuple[Number, ...]
    num_classes: Number | None
    label_names: tuple[Text, ...] | None
    columns: tuple[ColumnEncoding, ...]


@dataclass(frozen=True)
class DealtRows:
    """The rows of one silo.

    Attributes:
        record: see there.
        train: each client's rows, in the order of the record.
        own_test: each client's own test rows, where it has some.
        common_test: the silo's share of the test rows of all clients together, or None.
    """

    record: DealtRecord
    train: Sequence[Examples]
    own_test: Mapping[int, Examples]
    common_test: Examples | None


def write_dealt_rows(path: Path, rows: DealtRows) -> None:
    """Write such a file.

    Raises:
        OSError: it cannot be written.
    """
    tensors = _join("", list(enumerate(rows.train)))
    test = list(rows.own_test.items()) + ([] if rows.common_test is None else [(-1, rows.common_test)])
    tensors |= _join("test_", test) if test else {}
    write_atomic(path, safetensors.torch.save(tensors, {_RECORD: json.dumps(asdict(rows.record))}))


def _join(prefix: str, parts: Sequence[tuple[int, Examples]]) -> dict[str, Tensor]:
    """Return the tensors of these examples one after another, and the place of each one's client."""
    held = [(place, *examples.tensors()) for place, examples in parts]
    tensors = {f"{prefix}x": torch.cat([x for _, x, _ in held])}
    tensors[f"{prefix}client"] = torch.cat([torch.full((len(x),), place) for place, x, _ in held])
    ys = [y for _, _, y in held if y is not None]
    return tensors | ({f"{prefix}y": torch.cat(ys)} if ys else {})


def read_dealt_rows(path: Path) -> tuple[Source, DealtRecord]:
    """Return the rows of such a file as a source with clients of its own, in the order of the record.

    A test row of all clients together belongs to the client "".

    Raises:
        Mistake: the file cannot be read, or is damaged.
    """
    require_file(path)
    try:
        with safetensors.safe_open(path, "pt") as file:
            record = json.loads((file.metadata() or {}).get(_RECORD, "null"))
            tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118 - not a mapping
    except (OSError, ValueError, safetensors.SafetensorError) as error:
        raise Mistake(
            f"{path}: cannot be read as the rows of a rehearsal ({reason(error)}); deal them again"
        ) from error
    facts = read_record(record, DealtRecord, f"{path}: its description")
    try:
        train, groups = _part(tensors, "", facts.clients)
        test, test_groups = _part(tensors, "test_", facts.clients) if "test_x" in tensors else (None, None)
        if len(facts.places) != len(facts.clients) or set(groups) != set(facts.clients):
            raise ValueError("clients")
    except (KeyError, IndexError, ValueError, RuntimeError) as error:
        raise Mistake(f"{path}: is damaged ({reason(error)}); deal the rows again") from error
    source = Source(
        "dealt",
        train,
        test,
        facts.num_classes,
        groups=groups,
        test_groups=test_groups,
        label_names=facts.label_names,
        columns=facts.columns,
    )
    return source, facts


def _part(tensors: Mapping[str, Tensor], prefix: str, clients: Sequence[str]) -> tuple[Examples, list[str]]:
    """Return the examples of a part of the file, and the client id of each."""
    owners: list[Any] = tensors[f"{prefix}client"].tolist()
    examples = Examples(tensors[f"{prefix}x"], tensors.get(f"{prefix}y"))
    if len(owners) != len(examples) or (owners and not -1 <= min(owners) <= max(owners) < len(clients)):
        raise ValueError(f"{prefix}client")
    return examples, [clients[k] if k >= 0 else "" for k in owners]
