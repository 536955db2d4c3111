"""examples/text, as docs/how-to/fine_tune_text.md tells it, from a few paragraphs and for one round."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest

from coterie.cli.predict_command import write_predictions
from coterie.experiment import folder_jobs
from coterie.experiment.run import run
from coterie.experiment.settings import load_settings
from tests.examples.test_examples import FOLDER, example

pytest.importorskip("transformers")
datasets = pytest.importorskip("datasets")

PAGE = FOLDER.parent / "docs" / "how-to" / "fine_tune_text.md"
SMALL = ["rounds=1", "data.max_length=16", "algorithm.local_steps=2", "algorithm.batch_size=4"]


def test_the_page_has_the_files() -> None:
    """It shows each experiment as it is, without the comment at its top."""
    page = PAGE.read_text("utf-8")
    for file in sorted((FOLDER / "text").glob("*.toml")):
        assert file.read_text("utf-8").partition("\n")[2] in page, file.name


def test_a_small_transformer_is_made_trained_and_fine_tuned(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(folder_jobs, "write_report", lambda folder: (folder / "report.html").write_text("page"))
    datasets.disable_progress_bars()
    library = Path(json.__file__).parent
    example("text/prepare").main(tmp_path, library, ["pooch", "typer"], pretraining=30, each=20)
    started = {}
    for name, keys in {"pretrain": [], "classify": ["data.num_clients=2"], "next_token": []}.items():
        shutil.copy(FOLDER / "text" / f"{name}.toml", tmp_path)
        folder = tmp_path / "runs" / name
        summary = run(load_settings(tmp_path / f"{name}.toml", [*SMALL, *keys]), folder).summary
        started[name] = summary["bytes_up"]
    whole = started["pretrain"]  # of one client: all weights
    assert 2 * started["next_token"] < whole
    shutil.copy(FOLDER / "text" / "new.txt", tmp_path)
    for name, column in (("classify", "prediction"), ("next_token", "perplexity")):
        write_predictions(tmp_path / "runs" / name, tmp_path / "new.txt", None, tmp_path / "out.csv", trust=False)
        assert column in (tmp_path / "out.csv").read_text().splitlines()[0]
