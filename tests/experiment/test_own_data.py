"""A user's own files, as an experiment names them: what a run makes of them, and what it says of what it cannot use."""

import json
from pathlib import Path

import numpy as np
import pytest

from coterie import Mistake
from coterie.experiment import folder_jobs
from coterie.experiment.build_experiment import build_experiment
from coterie.experiment.resolve_engine import this_machine
from coterie.experiment.run import SilentRun, run
from coterie.experiment.settings import load_settings
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
    monkeypatch.setattr(folder_jobs, "write_report", lambda folder: (folder / "report.html").write_text("page"))


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
    outcome = run(load_settings(path, options), tmp_path / "run")
    assert json.loads((outcome.folder / "summary.json").read_text())["bytes_once"] == expected


def test_a_partitioner_of_another_library_is_named_with_its_own_keys(path: Path, tmp_path: Path) -> None:
    """The run's config.toml holds its defaults too, and deals the same again."""
    pytest.importorskip("flwr_datasets")
    options = ["data.partition=flwr:DirichletPartitioner", "data.num_clients=4", "data.alpha=0.5"]
    options += ["data.min_partition_size=2"]
    first = run(load_settings(path, options), tmp_path / "first").folder
    assert load_settings(first / "config.toml").data["self_balancing"] is False
    again = run(load_settings(first / "config.toml"), tmp_path / "again").folder
    assert (again / "clients.json").read_bytes() == (first / "clients.json").read_bytes()
    assert (again / "model.safetensors").read_bytes() == (first / "model.safetensors").read_bytes()
    for wrong, says in (
        (["data.partition=flwr:PathologicalPartitioner"], r"data.num_classes_per_partition is missing"),
        (["data.partition=flwr:IidPartitioner", "data.alpha=1"], r"data.alpha = 1: .* does not take it"),
        (["data.partition=flower"], r'data.partition = "flower": it must be one of iid, .* or "flwr:NAME"'),
    ):
        with pytest.raises(Mistake, match=says):
            load_settings(path, ["data.num_clients=4", *wrong])


def test_whose_test_rows_are_says_nothing_of_clients_that_were_made_up(tmp_path: Path) -> None:
    """Wards "0", "1", "2" of 20 rows each, dealt anew to three clients who are called the same."""
    rows = [f"{i % 7},{i % 3},{i // 3 % 2}" for i in range(60)]
    (tmp_path / "wards.csv").write_text("\n".join(["dose,ward,label", *rows]) + "\n")
    path = written(tmp_path, WARDS, "wards.toml")
    natural = build_experiment(load_settings(path), this_machine()).plan.evaluation.own
    assert natural is not None
    assert [len(natural[c]) for c in "012"] == [4, 4, 4]
    dealt = load_settings(path, ["data.partition=iid", "data.num_clients=3", "data.standardize=local"])
    assert build_experiment(dealt, this_machine()).plan.evaluation.own is None


def test_data_without_labels_are_for_algorithms_that_need_none(tmp_path: Path) -> None:
    """Two clients of pictures, no y, no test split; the classifier that nobody trains has one output."""
    x = np.random.default_rng(0).random((40, 1, 8, 8), dtype=np.float32)
    np.savez(tmp_path / "wards.npz", x=x, ward=np.array(["a", "b"]).repeat(20))
    npz = (
        WARDS.replace('"csv"', '"npz"').replace("wards.csv", "wards.npz").replace("[model]", "labels = false\n[model]")
    )
    path = written(tmp_path, npz, "wards.toml")
    learned = load_settings(path, ["algorithm.name=fedssl", "model.name=mlp", "algorithm.projection=4"])
    end = run(learned, tmp_path / "run").summary
    assert end["rounds"] == 2
    assert end["test_accuracy"] is None
    assert {c["examples"] for c in json.loads((tmp_path / "run" / "clients.json").read_text())} == {20}
    with pytest.raises(
        Mistake, match="there are no labels to learn from or to test on; give some, or an algorithm that"
    ):
        build_experiment(load_settings(path), this_machine())
    with pytest.raises(Mistake, match=r'wards.npz holds no array "y"; it holds x, ward'):
        build_experiment(load_settings(path, ["data.labels=true"]), this_machine())


def test_a_run_says_what_is_worth_saying_of_its_data(path: Path, tmp_path: Path) -> None:
    with (tmp_path / "wards.csv").open("a") as file:
        file.write("50,3,m,lonely,1\n")
    remarks = build_experiment(load_settings(path), this_machine()).remarks
    assert [sentence.split(",")[0] for sentence in remarks] == ["client lonely holds a single example"]
    said: list[str] = []
    watch = SilentRun()
    watch.say = said.append  # type: ignore[method-assign]
    run(load_settings(path), tmp_path / "run", watch=watch)
    assert said == list(remarks)
