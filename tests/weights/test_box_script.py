"""benchmarks/pretrain/box.py: an encoder trained in pieces, its checkpoint carried elsewhere, and its card."""

import hashlib
import importlib.util
import tomllib
from pathlib import Path
from types import ModuleType

import pytest
import safetensors.torch

from coterie.experiment import folder_jobs, pretraining_run
from coterie.experiment.pretraining_run import pretrain
from coterie.experiment.pretraining_settings import load_pretraining

TINY = """
[pretrain]
steps = 6
batch_size = 4
image_size = 8
num_systems = 20
points = 60
cached_systems = 20
projection = 8
interval = 1
[model]
name = "resnet20"
norm = "batch"
width = 2
[engine]
device = "cpu"
"""


@pytest.fixture
def script(monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    """The program as a module, without reports, sheets and the number that needs CIFAR-10."""
    path = Path(__file__).parents[2] / "benchmarks" / "pretrain" / "box.py"
    spec = importlib.util.spec_from_file_location("box_script", path)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    monkeypatch.setattr(folder_jobs, "write_report", lambda folder: (folder / "report.html").write_text("page"))
    monkeypatch.setattr(pretraining_run, "draw_example_sheet", lambda sizes, rng_seed: b"picture")
    monkeypatch.setattr(module, "probe", lambda model, weights: 0.5)
    return module


def test_pieces_in_two_places_train_the_encoder_of_an_unbroken_run(script: ModuleType, tmp_path: Path) -> None:
    """Pieces of an interval each; the folder of runs is lost in between, and only the saved checkpoint is carried."""
    box, to = tmp_path / "box", tmp_path / "to"
    box.mkdir()
    (box / "tiny.toml").write_text(TINY)
    pretrain(load_pretraining(box / "tiny.toml"), tmp_path / "whole")
    for runs in ("here", "here", "there"):
        assert not script.train("tiny", tmp_path / runs, box, minutes=0)
    script.restore("tiny", tmp_path / "elsewhere", box)
    script.export("tiny", tmp_path / "elsewhere", box, to)
    card = tomllib.loads((to / "tiny.toml").read_text())
    assert (card["trained"]["steps"], card["trained"]["planned_steps"], card["trained"]["images"]) == (3, 6, 24)
    assert card["trained"]["core_hours"] >= 0
    assert card["model"] == {"name": "resnet20", "norm": "batch"}
    assert script.train("tiny", tmp_path / "last", box, minutes=60)
    script.export("tiny", tmp_path / "last", box, to)
    data = (to / "tiny.safetensors").read_bytes()
    assert data == (tmp_path / "whole" / "model.safetensors").read_bytes()
    card = tomllib.loads((to / "tiny.toml").read_text())
    assert (card["trained"]["steps"], card["sha256"]) == (6, hashlib.sha256(data).hexdigest())
    assert "norm.running_mean" in safetensors.torch.load(data)
    assert len(list((box / "tiny").glob("manifest-*.json"))) == 1  # replaced, not piled up
    assert sorted(path.name for path in box.iterdir()) == ["tiny", "tiny.toml"]
