"""The source adult: who earns more than 50,000 dollars a year, from the United States census of 1994."""

from __future__ import annotations

import gzip
import zlib
from pathlib import Path

import numpy as np
import torch

from coterie.core.errors import Mistake, reason
from coterie.core.examples import Examples
from coterie.core.toml_text import toml_text
from coterie.data.feature_encoding import (
    CodedColumn,
    MeasuredColumn,
    encode_columns,
    is_missing,
    parse_measured_column,
)
from coterie.data.official_files import data_home, find_or_fetch
from coterie.data.origins import note_files
from coterie.data.source import Source

_URL = "https://archive.ics.uci.edu/ml/machine-learning-databases/adult/"
_FILES = {
    "adult.data": "sha256:5b00264637dbfec36bdeaab5676b0b309ff9eb788d63554ca0a249491c86603d",
    "adult.test": "sha256:a2a9044bc167a35b2361efbabec64e89d69ce82d9790d2980119aac5fd7e9c05",
}
_COLUMNS = [
    *(
        "age",
        "workclass",
        "fnlwgt",
        "education",
        "education-num",
        "marital-status",
        "occupation",
        "relationship",
        "race",
    ),
    *("sex", "capital-gain", "capital-loss", "hours-per-week", "native-country"),
]
_MEASURED = {"age", "fnlwgt", "education-num", "capital-gain", "capital-loss", "hours-per-week"}


def adult(client_column: str | None = None) -> Source:
    """Load Adult, a census, with its official split: does a person earn more than 50,000 dollars a year?

    It comes from `$COTERIE_DATA/adult/adult.data` and `adult.test`, gzipped or not.

    Args:
        client_column: a coded column whose values become the clients, such as occupation, education, workclass or
            native-country ("?" is one of them, as in the file). It is then not a feature. Without one the data have no
            clients.

    Raises:
        Mistake: a file is missing and cannot be fetched or is damaged, or there is no such column.

    Reference: Becker, Kohavi 1996 (UCI), CC BY 4.0.
    """
    coded = [c for c in _COLUMNS if c not in _MEASURED]
    if client_column is not None and client_column not in coded:
        raise Mistake(key="client_column", value=client_column, allowed=f"one of {', '.join(coded)}")
    rows = read_census("adult.data")
    num_train = len(rows)
    rows += read_census("adult.test")
    train = np.arange(num_train)
    columns = {name: [row[k] for row in rows] for k, name in enumerate(_COLUMNS)}
    features = [_parse_column(name, columns[name], num_train) for name in _COLUMNS if name != client_column]
    table = encode_columns(features, train)
    y = torch.tensor([row[-1].startswith(">") for row in rows], dtype=torch.int64)
    everything = Examples(table.x, y)
    ids = None if client_column is None else columns[client_column]
    return Source(
        "adult",
        everything.take(torch.arange(num_train)),
        everything.take(torch.arange(num_train, len(rows))),
        2,
        groups=None if ids is None else ids[:num_train],
        test_groups=None if ids is None else ids[num_train:],
        label_names=["<=50K", ">50K"],
        columns=table.columns,
    )


def read_census(name: str) -> list[list[str]]:
    """Read the rows of one file, fetched if it is missing, 15 cells each; lines that begin with "|" are comments.

    Raises:
        Mistake: it is missing and cannot be fetched, or is damaged.
    """
    packed = data_home() / "adult" / f"{name}.gz"
    path = (
        packed if packed.exists() else find_or_fetch("adult", name, _URL + name, _FILES[name], " or its gzipped form")
    )
    rows = []
    note_files([path])
    for number, line in enumerate(_read_text(path).splitlines(), 1):
        if not line.strip() or line.startswith("|"):
            continue
        cells = [cell.strip() for cell in line.rstrip(".").split(",")]
        if len(cells) != len(_COLUMNS) + 1 or cells[-1] not in ("<=50K", ">50K"):
            raise Mistake(f"{path}: line {number} is not a record of 14 values and an income; replace the file")
        rows.append(cells)
    if not rows:
        raise Mistake(f"{path}: holds no records; replace it, or delete it to have it fetched")
    return rows


def _read_text(path: Path) -> str:
    """Return the text of a file, unpacked if it is a .gz."""
    try:
        content = path.read_bytes()
        return (gzip.decompress(content) if path.suffix == ".gz" else content).decode()
    except (OSError, EOFError, zlib.error, UnicodeDecodeError) as error:
        raise Mistake(f"{path}: cannot be read ({reason(error)}); replace it") from error


def _parse_column(name: str, cells: list[str], num_train: int) -> MeasuredColumn | CodedColumn:
    """Return a column as measured, or as coded with the categories of the first `num_train` rows."""
    if name in _MEASURED:
        column = parse_measured_column(name, name, cells)
        if column is None:
            raise Mistake(
                f"{data_home() / 'adult'}: {name} holds {toml_text(cells[0])} where the census has numbers; "
                "replace the files"
            )
        return column
    values = [None if is_missing(c) else c for c in cells]
    return CodedColumn(name, values, sorted({v for v in values[:num_train] if v is not None}))
