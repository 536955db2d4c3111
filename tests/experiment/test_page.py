"""docs/experiment.md: its tables have the keys and defaults of the code, and the files and records of a run."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from coterie.algorithms import independent
from coterie.core.toml_text import toml_text
from coterie.experiment.keys import REQUIRED, Keys, keys_of
from coterie.experiment.read_keys import read_keys
from coterie.experiment.tables import FIXED, TABLES
from coterie.models import build
from coterie.models.registry import MODELS
from tests.experiment.conftest import Start

PAGE = (Path(__file__).parents[2] / "docs" / "experiment.md").read_text("utf-8")


def rows(heading: str) -> list[list[str]]:
    """The cells of the table below a heading, without its head."""
    section = re.split(rf"^## {heading}$", PAGE, flags=re.MULTILINE)[1].split("\n## ")[0]
    lines = [line for line in section.splitlines() if line.startswith("| ")]
    return [[cell.strip() for cell in line.strip("|").split(" | ")] for line in lines[1:]]


def told(keys: Keys) -> dict[str, str]:
    """Defaults by key, as the page writes them."""
    words = {REQUIRED: "required", None: "none"}
    return {
        f"`{name}`": words[key.default] if key.default in words else toml_text(key.default)
        for name, key in keys.items()
    }


@pytest.mark.parametrize(
    "table", ["cohort", "evaluate", "engine", "faults", "communication", "privacy", "deploy", "track"]
)
def test_a_table_has_its_keys_and_defaults(table: str) -> None:
    assert {key: default for key, default, *_ in rows(table.capitalize())} == told(read_keys(FIXED.places[table]))


def test_what_all_algorithms_share() -> None:
    assert {key: default for key, default, *_ in rows("Algorithm")} == told(keys_of(independent))


def test_every_table_is_named() -> None:
    assert [table for table in TABLES if f"`[{table}]` |" not in PAGE and f"`[{table}]`," not in PAGE] == []


def test_every_model_is_there_with_its_keys_and_its_size() -> None:
    sizes = {
        "MNIST": ([1, 28, 28], 10),
        "CIFAR-10": ([3, 32, 32], 10),
        "characters": ([80], 258),
        "words": ([10], 10_000),
    }
    found = {name.strip("`"): (size, own) for name, _, size, own in rows("Model")}
    assert found.keys() == MODELS.keys()
    for name, (size, own) in found.items():
        keys = keys_of(MODELS[name]).without(["in_shape", "num_classes"])
        defaults = dict(re.findall(r"`(\w+)` \[(\[.*?\]|[^\]]*)\]", own))
        values = {key: list(k.default) if isinstance(k.default, tuple) else k.default for key, k in keys.items()}
        assert defaults == {key: "the classes" if v is None else toml_text(v) for key, v in values.items()}
        shape, classes = sizes[size.split()[-1]]
        parameters = sum(p.numel() for p in build(name, shape, classes, rng_seed=0).parameters())
        assert size.split()[0] == f"{parameters:,}"


def test_the_folder_and_the_record(start: Start) -> None:
    """A plain run lacks what given weights, text, adapters, kinds of task, stages, peers and attacks add."""
    outcome = start("rounds=2")
    listed = dict(rows("The folder"))
    files = {path.name + "/" * path.is_dir() for path in outcome.folder.iterdir() if path.name != ".lock"}
    assert {name.strip("`") for names in listed for name in names.split(", ")} == files | {
        *("tensorboard/", "mlflow/", "wandb/", "track.json"),
        "start/",
        "adapter/",
        "stages/",
        "roster.toml",
        "predictions.json",
        "privacy.json",
        "tokenizer.json",
        "noise.json",
        "epsilons.json",
    }
    record = (outcome.folder / "rounds.jsonl").read_text().splitlines()[-1]
    in_every_record = set(re.findall(r"`(\w+)`", listed["`rounds.jsonl`"])) - {
        "test_outputs_not_finite",
        "auroc",
        "intervals",
    }
    assert in_every_record == set(re.findall(r'"(\w+)":', record))
