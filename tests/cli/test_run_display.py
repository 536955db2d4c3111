"""What the library logs is shown on the terminal."""

import logging
from pathlib import Path

import pytest

from coterie.cli.run_display import RunDisplay, show_logs
from coterie.engines import compiled
from tests.cli.test_main import exit_status
from tests.experiment.files import DIGITS, written


def test_log_messages_are_printed_as_notes(capsys: pytest.CaptureFixture[str]) -> None:
    library = logging.getLogger("coterie")
    before = library.level, list(library.handlers)
    with show_logs(RunDisplay()):
        compiled.log.info("compiling")
    assert capsys.readouterr().err == "note: compiling\n"
    assert (library.level, library.handlers) == before


def test_a_run_without_a_compiler_says_so_once(
    capsys: pytest.CaptureFixture[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("CXX", "no-such-compiler")
    written(tmp_path, DIGITS)
    assert exit_status("run", "digits.toml", "engine.compile=true", "engine.workers=1") == 0
    err = capsys.readouterr().err
    assert err.startswith("note: steps run uncompiled: ")
    assert err.count("\n") == 1
    assert exit_status("run", "digits.toml", "--out", "auto") == 0
    assert "engine: " in capsys.readouterr().out
    assert 'no C++ compiler"' in (tmp_path / "auto" / "config.toml").read_text()
