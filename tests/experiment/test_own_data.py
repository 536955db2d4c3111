"""A user's own files, as an experiment names them: what a run makes of them, and what it says of what it cannot use."""

import json
from pathlib import Path

import pytest

from coterie.experiment import run as module
from coterie.experiment.run import run
from coterie.experiment.settings import load
from tests.experiment.files import written

WARDS = """
rounds = 2
[data]
source = "csv"
path = "wards.csv"
client_column = "ward"
[model]
name = "logistic"
[algorithm]
name = "fedavg"
lr = 0.1
"""


@pytest.fixture
def path(tmp_path: Path) -> Path:
    """Three clients, two measured columns, one of two codes."""
    rows = [f"{20 + i},{i % 7},{'mf'[i % 2]},{'abc'[i % 3]},{i // 5 % 2}" for i in range(60)]
    (tmp_path / "wards.csv").write_text("\n".join(["age,dose,sex,ward,label", *rows]) + "\n")
    return written(tmp_path, WARDS, "wards.toml")


@pytest.fixture(autouse=True)
def no_report(monkeypatch: pytest.MonkeyPatch) -> None:
    """It takes longer than the runs."""
    monkeypatch.setattr(module, "write_report", lambda folder: (folder / "report.html").write_text("page"))


@pytest.mark.parametrize(
    ("options", "expected"),
    [
        # three clients; two columns of which each sends three float64 and is sent two
        ([], {"standardize": 3 * 2 * (3 + 2) * 8}),
        (["data.partition=iid", "data.num_clients=5"], {"standardize": 5 * 2 * (3 + 2) * 8}),
        (["data.standardize=local"], {}),
        (["data.standardize=none"], {}),
        (["algorithm.name=centralized"], {}),  # nothing is exchanged in one place
    ],
)
def test_what_standardising_sends_is_counted_once(
    path: Path, tmp_path: Path, options: list[str], expected: dict[str, int]
) -> None:
    outcome = run(load(path, options), tmp_path / "run")
    assert json.loads((outcome.folder / "summary.json").read_text())["bytes_once"] == expected
