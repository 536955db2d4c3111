"""ResNet-18 and both transformers, small, as whole runs: stopped and resumed, and many clients at once."""

from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import load_file

from coterie.experiment.run import run
from coterie.experiment.settings import load_settings

ADAMW = 'optimizer = "adamw"\nweight_decay = 0.01\nkeep_optimizer = true'
MODELS = {
    "resnet18": ("width = 2", "momentum = 0.9"),
    "vit": ("patch = 4\nwidth = 8\ndepth = 2\nheads = 2", ADAMW),
    "transformer": ("width = 8\ndepth = 2\nheads = 2", ADAMW),
}


def write(folder: Path, name: str) -> Path:
    """Write ten examples for each of three clients, two to test on, and the experiment; return its path."""
    draw = np.random.default_rng(0)
    x = draw.random((32, 3, 8, 8), dtype=np.float32)
    y = np.arange(32) % 5
    if name == "transformer":
        text = draw.integers(5, size=(32, 7))
        x, y = text[:, :-1], text[:, 1:]
    np.savez(folder / "data.npz", x=x, y=y, test=np.arange(32) < 2)
    options, local = MODELS[name]
    path = folder / "small.toml"
    path.write_text(
        'rounds = 2\n[data]\nsource = "npz"\npath = "data.npz"\npartition = "iid"\nnum_clients = 3\n'
        f'[model]\nname = "{name}"\n{options}\n[algorithm]\nname = "fedavg"\nlr = 0.01\nbatch_size = 4\n{local}\n'
        '[engine]\nname = "sequential"\ndevice = "cpu"\ncompile = false\nworkers = 1\n'
    )
    return path


@pytest.mark.parametrize("name", MODELS)
def test_a_run_that_goes_on_has_the_bits_of_one_that_was_not_stopped(name: str, tmp_path: Path) -> None:
    path = write(tmp_path, name)
    run(load_settings(path), tmp_path / "whole")
    run(load_settings(path, ["rounds=1"]), tmp_path / "parts")
    run(load_settings(path), tmp_path / "parts", resume=True)
    whole, parts = (load_file(tmp_path / each / "model.safetensors") for each in ("whole", "parts"))
    assert whole.keys() == parts.keys()
    assert all(torch.equal(whole[key], parts[key]) for key in whole)


@pytest.mark.parametrize("name", MODELS)
def test_clients_batched_learn_what_they_learn_one_after_another(name: str, tmp_path: Path) -> None:
    path = write(tmp_path, name)
    options = ["rounds=1", "engine.dtype=float64"]
    run(load_settings(path, options), tmp_path / "one")
    run(load_settings(path, [*options, "engine.name=vectorised"]), tmp_path / "many")
    one, many = (load_file(tmp_path / each / "model.safetensors") for each in ("one", "many"))
    for key in one:
        torch.testing.assert_close(one[key], many[key], rtol=1e-4, atol=1e-6)
