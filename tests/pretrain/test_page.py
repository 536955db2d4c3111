"""docs/pretraining.md says what is so: its file is valid, every key is named, and the files of its chain are there."""

import re
import tomllib
from dataclasses import fields
from pathlib import Path

import pytest

from coterie.experiment import pretraining, settings
from coterie.pretrain.fps import FPS

ROOT = Path(__file__).parents[2]
PAGE = (ROOT / "docs" / "pretraining.md").read_text("utf-8")


def test_the_file_shown_is_valid() -> None:
    (block,) = re.findall(r"```toml\n(.*?)```", PAGE, re.DOTALL)
    assert pretraining.parse(tomllib.loads(block), [ROOT]).pretrain.minutes == 15


def test_every_key_is_in_the_table() -> None:
    rows = [line.split("|")[1] for line in PAGE.splitlines() if line.startswith("| `")]
    assert set(re.findall(r"`(\w+)`", " ".join(rows))) == {field.name for field in fields(FPS)}


@pytest.mark.parametrize("name", ["cifar10-fedssl", "cifar10-dirichlet"])
def test_the_chain_is_of_files_that_are_valid(name: str) -> None:
    assert f"experiments/{name}.toml" in " ".join(PAGE.split())
    model = settings.load(ROOT / "experiments" / f"{name}.toml").model
    given = {key: value for key, value in model.items() if value is not None}
    assert given == {"name": "resnet20", "width": 16, "norm": "batch"}
