"""The source heart_disease: patients of four hospitals, each with its own gaps in the records."""

from __future__ import annotations

import math
from pathlib import Path

import numpy as np
import torch

from coterie.core.errors import Mistake, reason
from coterie.core.examples import Examples
from coterie.core.toml_text import toml_text
from coterie.data.feature_encoding import CodedColumn, MeasuredColumn, encode_columns, is_missing, parse_number
from coterie.data.official_files import find_or_fetch
from coterie.data.source import Source
from coterie.data.train_test_split import combine_strata, split_rows

_URL = "https://archive.ics.uci.edu/ml/machine-learning-databases/heart-disease/"
_FILES = {
    "cleveland": "md5:2d91a8ff69cfd9616aa47b59d6f843db",
    "hungarian": "md5:22e96bee155b5973568101c93b3705f6",
    "switzerland": "md5:9a87f7577310b3917730d06ba9349e20",
    "va": "md5:4249d03ca7711e84f4444768c9426170",
}
"""The checksum of each hospital's file. Each hospital is a client."""

# The codes of each column: a measured column has none; one of two codes is enough.
_COLUMNS: dict[str, list[str]] = {
    "age": [],  # years
    "sex": ["1"],  # 1 male, 0 female
    "cp": ["1", "2", "3", "4"],  # chest pain: typical angina, atypical, other, none
    "trestbps": [],  # blood pressure at rest on admission, mm Hg
    "chol": [],  # serum cholesterol, mg/dl
    "fbs": ["1"],  # fasting blood sugar above 120 mg/dl
    "restecg": ["0", "1", "2"],  # electrocardiogram at rest: normal, abnormal ST-T, hypertrophy
    "thalach": [],  # highest heart rate reached
    "exang": ["1"],  # angina from exercise
    "oldpeak": [],  # ST depression from exercise
    "slope": ["1", "2", "3"],  # of the ST segment at peak exercise: up, flat, down
    "ca": [],  # major vessels coloured by fluoroscopy, 0 to 3
    "thal": ["3", "6", "7"],  # normal, fixed defect, reversible defect
}
# Nobody has a cholesterol or a blood pressure of zero: here it means "not measured", as for all of Switzerland's.
_ZERO_IS_MISSING = {"trestbps", "chol"}


def heart_disease(test_fraction: float = 0.2) -> Source:
    """Load UCI's heart disease data of four hospitals: does a patient have a narrowed vessel?

    It comes from `$COTERIE_DATA/heart_disease/processed.*.data`. The label is whether num > 0. The 13 columns become
    features by the rules of `coterie.data.feature_encoding`: measured columns hold NaN where missing until they are
    standardised, coded columns have a feature for each code, and a column with missing values has a feature that says
    so; `feature_names` lists them all. A blood pressure or a cholesterol of 0 is read as missing. There is no official
    test split, so a fixed one, stratified by hospital and label, is taken first.

    Departure from FLamby's version of these data: it drops columns and patients with gaps; here all 920 patients stay.

    Args:
        test_fraction: what part of the patients becomes the test set.

    Raises:
        Mistake: a file is missing and cannot be fetched, or is damaged.

    Reference: Janosi, Steinbrunn, Pfisterer, Detrano 1988 (UCI), CC BY 4.0.
    """
    rows, hospitals = [], []
    for hospital, checksum in _FILES.items():
        name = f"processed.{hospital}.data"
        patients = read_patients(find_or_fetch("heart_disease", name, _URL + name, checksum))
        rows += patients
        hospitals += [hospital] * len(patients)
    values = np.array(rows)  # [N, 14]
    y = (values[:, -1] > 0).astype(np.int64)
    train, test = split_rows(combine_strata(hospitals, y), test_fraction)
    table = encode_columns([_parse_column(k, values[:, k]) for k in range(len(_COLUMNS))], train)
    everything = Examples(table.x, torch.from_numpy(y))
    return Source(
        "heart_disease",
        everything.take(torch.from_numpy(train)),
        everything.take(torch.from_numpy(test)),
        2,
        groups=[hospitals[i] for i in train],
        test_groups=[hospitals[i] for i in test],
        label_names=["healthy", "diseased"],
        columns=table.columns,
    )


def read_patients(path: Path) -> list[list[float]]:
    """Read the patients of one hospital: 13 columns and num, NaN where missing ("?", empty or -9).

    A header line is skipped.

    Raises:
        Mistake: the file cannot be read, or a line is not such a record.
    """
    try:
        lines = path.read_text(encoding="utf-8").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        raise Mistake(f"{path}: cannot be read ({reason(error)})") from error
    numbered = [(k, line) for k, line in enumerate(lines, 1) if line.strip() and not line.startswith("age,")]
    if not numbered:
        raise Mistake(f"{path}: holds no patients; replace it, or delete it to have it fetched")
    return [_parse_record(f"{path}: line {k}", line.split(",")) for k, line in numbered]


def _parse_record(where: str, cells: list[str]) -> list[float]:
    """Return the numbers of one patient, NaN where missing; refuse a record of another form."""
    if len(cells) != len(_COLUMNS) + 1:
        raise Mistake(f"{where}: holds {len(cells)} values; a patient has {len(_COLUMNS) + 1}")
    record = []
    for name, cell in zip([*_COLUMNS, "num"], cells, strict=True):
        value = math.nan if is_missing(cell) else parse_number(cell)
        if value is None or math.isinf(value):
            raise Mistake(f"{where}: {name} = {toml_text(cell)} is not a number")
        gap = value == -9 or (value == 0 and name in _ZERO_IS_MISSING)
        record.append(math.nan if gap else value)
    if math.isnan(record[-1]):
        raise Mistake(f"{where}: num, the diagnosis, is missing")
    return record


def _parse_column(k: int, values: np.ndarray[tuple[int], np.dtype[np.float64]]) -> MeasuredColumn | CodedColumn:
    """Return column number `k` as measured, or as coded if it holds codes."""
    name, codes = list(_COLUMNS.items())[k]
    if not codes:
        return MeasuredColumn(name, values)
    return CodedColumn(name, [None if math.isnan(v) else f"{v:g}" for v in values], codes)
