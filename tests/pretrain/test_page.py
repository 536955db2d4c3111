"""docs/pretraining.md is right: its file is valid, every key is named, and the files of its chain exist."""

import re
import tomllib
from dataclasses import fields
from pathlib import Path

import pytest

from coterie.experiment.pretraining_settings import parse_pretraining
from coterie.experiment.settings import load_settings, parse_settings
from coterie.experiment.tables import Pretrain
from coterie.pretrain.fps import FPS

ROOT = Path(__file__).parents[2]
PAGE = (ROOT / "docs" / "pretraining.md").read_text("utf-8")
HOW_TO = (ROOT / "docs" / "how-to" / "start_from_weights.md").read_text("utf-8")


def test_the_file_shown_is_valid() -> None:
    (block,) = re.findall(r"```toml\n(.*?)```", PAGE, re.DOTALL)
    assert parse_pretraining(tomllib.loads(block), [ROOT]).pretrain.minutes == 15


def test_every_key_is_in_the_table() -> None:
    rows = [line.split("|")[1] for line in PAGE.splitlines() if line.startswith("| `")]
    assert set(re.findall(r"`(\w+)`", " ".join(rows))) == {field.name for field in fields(FPS)}


@pytest.mark.parametrize("name", ["cifar10-fedssl", "cifar10-dirichlet"])
def test_the_files_of_the_chain_are_valid(name: str) -> None:
    assert f"experiments/{name}.toml pretrain.weights=" in PAGE
    model = load_settings(ROOT / "experiments" / f"{name}.toml").model
    given = {key: value for key, value in model.items() if value is not None}
    assert given == {"name": "resnet20", "width": 16, "norm": "batch"}


@pytest.mark.parametrize("block", re.findall(r"```toml\n(.*?)```", HOW_TO, re.DOTALL))
def test_every_table_of_starting_from_weights_is_valid(block: str, tmp_path: Path) -> None:
    shown = tomllib.loads(block)
    if ":" in shown.get("model", {}).get("name", ""):
        pytest.importorskip(shown["model"]["name"].partition(":")[0])
    rest = {"rounds": 1, "data": {"source": "digits"}, "model": {"name": "resnet20"}}
    rest["algorithm"] = {"name": "fedavg", "lr": 0.1}
    assert parse_settings(rest | shown, [tmp_path]).pretrain.weights


def test_every_key_of_starting_from_weights_is_explained() -> None:
    named = set(re.findall(r"^(\w+) = |`(\w+)(?: = .*?)?`", HOW_TO, re.MULTILINE))
    assert {field.name for field in fields(Pretrain)} <= {name for pair in named for name in pair}
