"""The encoders that come with coterie: their files and cards, and runs and models that start from them."""

import hashlib
import json
import subprocess
import sys
from pathlib import Path

import pytest
import torch

import coterie
from coterie import Mistake
from coterie.experiment import folder_jobs
from coterie.experiment.run import run
from coterie.experiment.settings import load_settings
from coterie.experiment.starting_weights import remarks_on_weights
from coterie.models import registry
from coterie.weights import cards
from tests.experiment.files import written

FILE = """
rounds = 1
[data]
source = "npz"
path = "images.npz"
partition = "iid"
num_clients = 2
[model]
name = "resnet20"
[algorithm]
name = "fedavg"
lr = 0.1
[pretrain]
weights = "box:fps-resnet20"
[engine]
name = "sequential"
compile = false
"""


@pytest.fixture
def images(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Twelve images of eight pixels a side, and a file that trains on them from the box."""
    import numpy as np

    draw = np.random.default_rng(0)
    np.savez(tmp_path / "images.npz", x=draw.random((12, 3, 8, 8), np.float32), y=np.arange(12) % 2)
    monkeypatch.setattr(folder_jobs, "write_report", lambda folder: (folder / "report.html").write_text("page"))
    return written(tmp_path, FILE)


def test_names_and_cards_are_read_without_pytorch() -> None:
    program = (
        "import sys; sys.modules['torch'] = None\n"
        "import coterie.weights as w\n"
        "assert all(w.card(name)['licence'] for name in w.names())\n"
    )
    subprocess.run([sys.executable, "-c", program], check=True)


@pytest.mark.parametrize("name", cards.names())
def test_each_encoder_is_what_its_card_says_and_fits_its_model(name: str) -> None:
    card, weights = coterie.weights.card(name), coterie.weights.load(name)
    assert hashlib.sha256(cards.weights_path(name).read_bytes()).hexdigest() == card["sha256"]
    assert 0 < card["trained"]["steps"] <= card["trained"]["planned_steps"] == card["settings"]["pretrain"]["steps"]
    model = registry.build(card["model"].pop("name"), (3, 32, 32), 10, rng_seed=0, **card["model"])
    result = model.load_state_dict(weights, strict=False)
    assert (result.missing_keys, result.unexpected_keys) == (["output.weight", "output.bias"], [])
    assert ("norm.running_mean" in weights) == (card["normalisation"] == "batch")
    for evaluation in card["evaluations"]:
        assert {"what", "command", "accuracy", "random_weights"} == evaluation.keys()


def test_an_encoder_that_is_not_finished_says_so(images: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    about = {**cards.card("fps-resnet20"), "trained": {"steps": 1700, "planned_steps": 60_000}, "evaluations": []}
    monkeypatch.setattr(cards, "card", lambda name: about)
    (sentence,) = remarks_on_weights(load_settings(images))
    assert "box:fps-resnet20 is not finished: 1,700 of 60,000 steps, and nobody has measured" in sentence
    about["trained"]["steps"] = 60_000
    assert remarks_on_weights(load_settings(images)) == []


def test_a_run_starts_from_the_box_and_a_resume_needs_no_box(images: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = run(load_settings(images), images.parent / "run").folder
    (about,) = json.loads((folder / "start" / "start.json").read_text())
    card = coterie.weights.card("fps-resnet20")
    assert about["loaded"]["sha256"] == card["sha256"]
    assert about["loaded"]["new"] == ["output.weight", "output.bias"]
    assert about["loaded"]["source"] == f"box:fps-resnet20, {card['trained']['steps']:,} steps"
    begun = tensors(folder / "start" / "model.safetensors")
    assert all(torch.equal(begun[n], x) for n, x in coterie.weights.load("fps-resnet20").items())
    monkeypatch.setattr("coterie.experiment.starting_weights.load", lambda name: 1 / 0)
    assert run(load_settings(folder / "config.toml", ["rounds=2"]), folder, resume=True).summary["rounds"] == 2


def tensors(path: Path) -> dict[str, torch.Tensor]:
    import safetensors.torch

    return safetensors.torch.load_file(path)


@pytest.mark.parametrize(
    ("overrides", "sentence"),
    [
        (
            ["pretrain.weights=box:fps-resnet"],
            'pretrain.weights = "box:fps-resnet": did you mean "box:fps-resnet20',
        ),
        (["pretrain.weights=box:"], 'pretrain.weights = "box:": there are fps-resnet20, fps-resnet20-groupnorm'),
        (
            ["model.norm=group"],
            'box:fps-resnet20 is for a model with name = "resnet20", norm = "batch"',
        ),
        (
            ["pretrain.weights=box:fps-resnet20-groupnorm"],
            'box:fps-resnet20-groupnorm is for a model with name = "resnet20", norm = "group"',
        ),
        (["model.width=8"], 'box:fps-resnet20 is for a model with name = "resnet20", norm = "batch"'),
    ],
)
def test_what_is_not_in_the_box_or_does_not_fit_is_one_sentence(
    overrides: list[str], sentence: str, images: Path
) -> None:
    with pytest.raises(Mistake, match=sentence.replace("[", r"\[")):
        run(load_settings(images, overrides), images.parent / "run")
    assert not (images.parent / "run").exists()


def test_weights_of_batchnorm_fit_a_converted_model(images: Path) -> None:
    outcome = run(load_settings(images, ["model.normalisation=group"]), images.parent / "run")
    assert outcome.summary["rounds"] == 1


def test_a_damaged_file_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    card, data = (cards.FOLDER / "fps-resnet20.toml"), cards.weights_path("fps-resnet20").read_bytes()
    monkeypatch.setattr(cards, "FOLDER", tmp_path)
    (tmp_path / card.name).write_bytes(card.read_bytes())
    with pytest.raises(Mistake, match=r"cannot be read \(No such file or directory\); install coterie again"):
        coterie.weights.load("fps-resnet20")
    (tmp_path / "fps-resnet20.safetensors").write_bytes(data[:-1] + bytes([data[-1] ^ 1]))
    with pytest.raises(Mistake, match="is damaged: its checksum is not the one on its card"):
        coterie.weights.load("fps-resnet20")
