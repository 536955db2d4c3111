"""Optimisers and schedules in a file: what config.toml says, and what a run that goes on for more rounds does."""

import json
import tomllib
from pathlib import Path
from typing import Any

import pytest

from coterie.core.errors import Mistake
from coterie.experiment.run import run
from coterie.experiment.settings import load_settings
from tests.experiment.files import DIGITS, written

COSINE = ["algorithm.optimizer=adamw", "algorithm.weight_decay=0.01", "algorithm.schedule=cosine", "algorithm.lr=0.01"]


def config(folder: Path) -> dict[str, Any]:
    return dict(tomllib.loads((folder / "config.toml").read_text())["algorithm"])


def losses(folder: Path) -> list[float]:
    return [json.loads(line)["train_loss"] for line in (folder / "rounds.jsonl").read_text().splitlines()]


def test_a_schedule_ends_with_the_run_and_a_longer_run_keeps_its_length(tmp_path: Path) -> None:
    """Three rounds at once, and one that was stopped after two of a schedule of two: then the last rate stays."""
    file = written(tmp_path, DIGITS)
    ends = [*COSINE, "algorithm.lr_end=0.001", "algorithm.betas=[0.8, 0.99]"]
    run(load_settings(file, ["rounds=2", *ends]), tmp_path / "run")
    assert config(tmp_path / "run")["schedule_length"] == 2
    assert config(tmp_path / "run")["betas"] == [0.8, 0.99]
    for settings in (
        load_settings(file, ["rounds=3", *ends]),
        load_settings(tmp_path / "run/config.toml", ["rounds=3"]),
    ):
        assert run(settings, tmp_path / "run", resume=True).summary["rounds"] == 3
    assert config(tmp_path / "run")["schedule_length"] == 2
    run(load_settings(file, ["rounds=3", *ends, "algorithm.schedule_length=2"]), tmp_path / "at_once")
    assert losses(tmp_path / "run") == losses(tmp_path / "at_once")
    run(load_settings(file, ["rounds=3", *ends]), tmp_path / "longer")
    assert config(tmp_path / "longer")["schedule_length"] == 3
    assert losses(tmp_path / "longer")[1:] != losses(tmp_path / "at_once")[1:]


def test_rounds_that_would_train_nothing_are_refused(tmp_path: Path) -> None:
    file = written(tmp_path, DIGITS)
    run(load_settings(file, ["rounds=1", *COSINE]), tmp_path / "run")
    with pytest.raises(Mistake) as caught:
        run(load_settings(file, ["rounds=2", *COSINE]), tmp_path / "run", resume=True)
    sentence = (
        "algorithm.schedule_length = 1: the learning rate is 0 from then on, and rounds = 2; set lr_end, or run no"
    )
    assert sentence in str(caught.value)


def test_an_override_of_the_optimiser_names_the_key_that_does_not_fit(tmp_path: Path) -> None:
    file = written(tmp_path, DIGITS)
    with pytest.raises(Mistake) as caught:
        run(load_settings(file, ["rounds=1", "algorithm.optimizer=adam", "algorithm.momentum=0.9"]), tmp_path / "run")
    assert 'algorithm.momentum = 0.9: the optimizer "adam" does not take it' in str(caught.value)
    assert not (tmp_path / "run").exists()
