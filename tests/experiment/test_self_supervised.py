"""Self-supervised learning through a file: what its run leaves, and what it cannot be asked for."""

import json
from pathlib import Path

import pytest
import safetensors.torch

from coterie import Mistake
from coterie.experiment import folder_jobs
from coterie.experiment.run import run
from coterie.experiment.settings import load_settings
from tests.experiment.files import written

OVERRIDES = ("algorithm={name='fedssl', lr=0.05, batch_size=32, projection=16}", "rounds=2")


@pytest.mark.parametrize("loss", ["simsiam", "moco"])
def test_a_run_ends_in_weights_of_the_whole_model(tmp_path: Path, loss: str) -> None:
    settings = load_settings(written(tmp_path), (*OVERRIDES, f"algorithm.loss={loss}"))
    folder = run(settings, tmp_path / "run").folder
    assert set(safetensors.torch.load_file(folder / "model.safetensors")) == {
        "1.weight",
        "1.bias",
        "3.weight",
        "3.bias",
    }
    end = json.loads((folder / "summary.json").read_text())
    assert end["test_accuracy"] is end["best_test_accuracy"] is None
    assert 0.02 < end["spread"] <= 1.5
    assert end["collapsed"] is False
    records = [json.loads(line) for line in (folder / "rounds.jsonl").read_text().splitlines()]
    assert [r["spread"] for r in records][-1] == end["spread"]
    assert all(r["test_accuracy"] is None for r in records)
    page = (folder / "report.html").read_text()
    assert "spread of outputs" in page
    assert "test accuracy" not in page.split("Configuration")[0].split("Accuracy and loss")[0]


def test_a_target_accuracy_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(folder_jobs, "write_report", lambda folder: None)
    settings = load_settings(written(tmp_path), (*OVERRIDES, "evaluate.target_accuracy=0.9"))
    with pytest.raises(Mistake, match=r"evaluate.target_accuracy = 0.9: fedssl trains no classifier"):
        run(settings, tmp_path / "run")
    assert not (tmp_path / "run").exists()
