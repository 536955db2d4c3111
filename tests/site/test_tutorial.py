"""docs/tutorial.md: every file and command on the page works, in the page's order."""

from __future__ import annotations

import re
import shlex
import sys
import tomllib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch

from coterie.cli.main import app, main
from coterie.experiment.settings import parse_settings
from tests.site.hook import DOCS

PAGE = (DOCS / "tutorial.md").read_text("utf-8")
BLOCK = re.compile(r'^```(bash|python|toml)(?: title="([\w.]+)")?\n(.*?)^```', re.DOTALL | re.MULTILINE)


def start(command: str) -> int:
    """The exit status of a command."""
    with pytest.raises(SystemExit) as end:
        main(shlex.split(command)[1:])
    return int(end.value.code or 0)


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """A working directory with what a copy of the repository has, and fewer rounds of the first experiment."""
    (tmp_path / "experiments").mkdir()
    digits = (DOCS.parent / "experiments" / "digits.toml").read_text("utf-8")
    (tmp_path / "experiments" / "digits.toml").write_text(digits.replace("rounds = 60", "rounds = 2"), "utf-8")
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(str(tmp_path))
    yield tmp_path
    sys.modules.pop("my_model", None)


@pytest.mark.long
def test_it_works_from_the_first_line_to_the_last(folder: Path) -> None:
    for language, file, text in BLOCK.findall(PAGE):
        if language != "bash" and file:
            (folder / file).write_text(text, "utf-8")
        if language == "bash":
            for command in text.splitlines():
                # a sweep's runs are processes, which its own tests start; here its grid is checked
                words = f"{command} --slurm" if command.startswith("coterie sweep") else command
                assert start(words) == (2 if file == "refused" else 0), command
        elif language == "python" and "def " not in text:
            exec(compile(text, "docs/tutorial.md", "exec"), {"__name__": "tutorial"})
    reports = {path.parent.name for path in folder.glob("runs/*/report.html")}
    assert reports == {"digits", "fedprox", "patients", "scans", "my-model"}
    assert (folder / "compare.html").exists()
    assert len((folder / "predictions.csv").read_text("utf-8").splitlines()) == 1 + 569


@pytest.mark.parametrize("name", ["patients.toml", "scans.toml"])
def test_its_files_are_valid(name: str, tmp_path: Path) -> None:
    (text,) = [text for _, file, text in BLOCK.findall(PAGE) if file == name]
    assert parse_settings(tomllib.loads(text), [tmp_path]).rounds in (3, 20)


def test_its_model_fits_pictures() -> None:
    (text,) = [text for _, file, text in BLOCK.findall(PAGE) if file == "my_model.py"]
    names: dict[str, Any] = {}
    exec(text, names)
    assert names["small_cnn"]((1, 8, 8), 10)(torch.zeros(2, 1, 8, 8)).shape == (2, 10)


@pytest.mark.parametrize("command", re.findall(r"^coterie .*$", PAGE, re.MULTILINE))
def test_its_commands_name_what_is_there(command: str) -> None:
    words = shlex.split(command)
    assert words[1] in {each.name or each.callback.__name__ for each in app.registered_commands if each.callback} | {
        "data"
    }
    made = {file for _, file, _ in BLOCK.findall(PAGE)}
    files = [word for word in words if word.endswith(".toml")]
    assert all(file in made or (DOCS.parent / file).exists() for file in files)
