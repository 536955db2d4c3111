"""Options of [algorithm] whose defaults follow from one another: FBN's variants in a file and in a run folder."""

import tomllib
from pathlib import Path
from typing import Any

import pytest

from coterie.core.errors import Mistake
from coterie.experiment.run import run
from coterie.experiment.settings import load_settings
from tests.experiment.files import DIGITS, written

NORMED = """
from torch import nn

def net(in_shape, num_classes):
    return nn.Sequential(nn.Flatten(), nn.Linear(64, 8), nn.BatchNorm1d(8), nn.ReLU(), nn.Linear(8, num_classes))
"""
FBN = DIGITS.replace('"fedavg"', '"fbn"').replace('name = "mlp"\nhidden = [16]', 'name = "normed_of_a_test:net"')


@pytest.fixture
def file(tmp_path: Path) -> Path:
    (tmp_path / "normed_of_a_test.py").write_text(NORMED)
    return written(tmp_path, FBN)


def config(folder: Path) -> dict[str, Any]:
    return dict(tomllib.loads((folder / "config.toml").read_text())["algorithm"])


@pytest.mark.parametrize(
    ("overrides", "expected"),
    [
        ([], {"variant": "recommended", "server": "muon", "warm_start": "own", "centre": True}),
        (["algorithm.gradient=constant"], {"variant": "paper", "warm_start": 0, "server_clip_norm": "none"}),
        (["algorithm.variant=paper", "algorithm.centre=true"], {"gradient": "constant", "centre": True}),
    ],
)
def test_the_folder_says_what_every_option_was(
    file: Path, tmp_path: Path, overrides: list[str], expected: dict[str, Any]
) -> None:
    run(load_settings(file, ["rounds=1", *overrides]), tmp_path / "run")
    found = config(tmp_path / "run")
    assert found | expected == found
    again = load_settings(tmp_path / "run" / "config.toml", ["rounds=2"])
    assert run(again, tmp_path / "run", resume=True).summary["rounds"] == 2
    assert config(tmp_path / "run") == found


def test_a_folder_without_a_variant_goes_on_as_the_papers(file: Path, tmp_path: Path) -> None:
    """From the file that left all of it open, as it stood when the paper's was the only variant."""
    plain = load_settings(file, ["rounds=2"])
    for name in ("at_once", "older"):
        run(
            load_settings(file, ["rounds=2" if name == "at_once" else "rounds=1", "algorithm.variant=paper"]),
            tmp_path / name,
        )
    path = tmp_path / "older" / "config.toml"
    new = ("variant", "centre", "server_clip_norm", "server = ")
    path.write_text("\n".join(line for line in path.read_text().splitlines() if not line.startswith(new)))
    run(plain, tmp_path / "older", resume=True)
    assert config(tmp_path / "older")["statistics_momentum"] == 0.1
    one, other = ((tmp_path / name / "model.safetensors").read_bytes() for name in ("at_once", "older"))
    assert one == other


def test_another_variant_is_another_run(file: Path, tmp_path: Path) -> None:
    run(load_settings(file, ["rounds=1"]), tmp_path / "run")
    with pytest.raises(Mistake, match=r"algorithm\.variant.*changed since the run"):
        run(load_settings(file, ["algorithm.variant=paper"]), tmp_path / "run", resume=True)
