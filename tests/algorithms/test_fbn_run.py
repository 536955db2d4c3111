"""FBN as a user runs it: a file, a model of the user's own with torch's BatchNorm, and what the folder holds."""

import importlib.util
import json
from pathlib import Path

import pytest
import safetensors.torch
import torch

from coterie import Mistake
from coterie.experiment import folder_jobs
from coterie.experiment.run import run
from coterie.experiment.settings import load_settings

MODEL = """
from torch import nn

def net(in_shape, num_classes):
    return nn.Sequential(
        nn.Conv2d(in_shape[0], 6, 3, stride=2), nn.BatchNorm2d(6), nn.ReLU(), nn.Flatten(),
        nn.Linear(54, 16), nn.BatchNorm1d(16), nn.ReLU(), nn.Linear(16, num_classes),
    )
"""

SETTINGS = """
rounds = 10
[data]
source = "digits"
partition = "label"
num_clients = 10
labels_per_client = 1
[model]
name = "my_model:net"
[algorithm]
name = "fbn"
variant = "paper"
lr = 0.1
local_steps = 1
batch_size = "full"
[engine]
dtype = "float64"
"""


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setattr(folder_jobs, "write_report", lambda folder: (folder / "report.html").write_text("page"))
    (tmp_path / "my_model.py").write_text(MODEL)
    (tmp_path / "one_label.toml").write_text(SETTINGS)
    pooled = SETTINGS.replace('"label"', '"iid"').replace("labels_per_client = 1\n", "")
    (tmp_path / "pooled.toml").write_text(pooled.replace("num_clients = 10", "num_clients = 1"))
    for name in ("one_label", "pooled"):
        run(load_settings(tmp_path / f"{name}.toml"), tmp_path / name)
    return tmp_path


def test_ten_clients_of_one_label_end_where_one_client_with_everything_does(folder: Path) -> None:
    """Ten rounds; weights, M and V to 1e-6. The engines may differ, and so may the file's order of examples."""
    first, second = (
        safetensors.torch.load_file(folder / name / "model.safetensors") for name in ("one_label", "pooled")
    )
    assert first.keys() == second.keys()
    for name, value in first.items():
        assert torch.allclose(value, second[name], rtol=0, atol=1e-6), name
    spec = importlib.util.spec_from_file_location("users_own", folder / "my_model.py")
    assert spec is not None
    assert spec.loader is not None
    users = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(users)
    users.net([1, 8, 8], 10).load_state_dict(first)
    last = json.loads((folder / "one_label" / "rounds.jsonl").read_text().splitlines()[-1])
    assert {"shift.1", "shift.5", "drift.1", "drift.5"} <= last.keys()


def test_a_file_says_what_batchnorm_becomes(folder: Path) -> None:
    """FedAvg of the same model with GroupNorm: the same names, but no running statistics."""
    overrides = ["algorithm.name=fedavg", "model.normalisation=group", "model.groups=3", "rounds=1"]
    settings = load_settings(folder / "one_label.toml", overrides)
    with pytest.raises(Mistake, match=r"model\.groups = 3: it must divide the channels of every layer, and one has 16"):
        run(settings, folder / "grouped")
    run(load_settings(folder / "one_label.toml", [*overrides[:2], "rounds=1"]), folder / "grouped")
    batch, group = (
        safetensors.torch.load_file(folder / name / "model.safetensors") for name in ("one_label", "grouped")
    )
    assert {name for name in batch if name not in group} == {
        f"{layer}.{name}" for layer in (1, 5) for name in ("running_mean", "running_var", "num_batches_tracked")
    }
    assert load_settings(folder / "grouped" / "config.toml").model["normalisation"] == "group"


def test_groups_of_nothing(folder: Path) -> None:
    with pytest.raises(Mistake, match=r'model\.groups = 3: it belongs to model\.normalisation = "group"'):
        run(load_settings(folder / "one_label.toml", ["model.groups=3"]), folder / "grouped")


def test_a_model_that_has_such_a_key_gets_it(folder: Path) -> None:
    """It is called with it, and nothing is converted."""
    text = MODEL.replace("num_classes):", "num_classes, normalisation='batch'):\n    assert normalisation == 'mine'", 1)
    (folder / "other_model.py").write_text(text)
    run(
        load_settings(folder / "one_label.toml", ["model.name=other_model:net", "model.normalisation=mine"]),
        folder / "own",
    )
    assert "1.running_mean" in safetensors.torch.load_file(folder / "own" / "model.safetensors")
