"""What the library logs is shown on the terminal."""

import json
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


def test_a_run_says_whom_it_hides_and_what_that_cost(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    file = written(tmp_path, DIGITS)
    guarantee = ["privacy.unit=client", "privacy.clip_norm=0.5", "privacy.epsilon=3.0", "privacy.delta=1e-3"]
    assert exit_status("run", str(file), "--out", str(tmp_path / "a"), *guarantee, "privacy.noise=rng_seed") == 0
    out = capsys.readouterr().out
    assert "privacy: hides any one client: epsilon 3 at most, delta 0.001, noise multiplier " in out
    assert "; whoever knows the rng seed can take the noise away" in out
    spent = json.loads((tmp_path / "a" / "summary.json").read_text())["epsilon"]
    (row,) = [line for line in out.splitlines() if line.startswith("epsilon ")]
    assert spent <= float(row.split()[1]) <= min(spent + 0.0011, 3.0)
    assert "for any one client, at delta 0.001" in row


def test_a_run_without_a_guarantee_states_none(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    file = written(tmp_path, DIGITS)
    assert exit_status("run", str(file), "--out", str(tmp_path / "a"), "privacy.secure_sum=true") == 0
    out = capsys.readouterr().out
    assert "privacy: the server sees sums of updates alone; sums without noise are no guarantee" in out
    assert "epsilon" not in out
    assert exit_status("run", str(file), "--out", str(tmp_path / "b")) == 0
    assert "privacy" not in capsys.readouterr().out
