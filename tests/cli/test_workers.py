"""`coterie run` in several processes: a mistake in one of them ends the run."""

from pathlib import Path

import pytest

from coterie.processes import spawn
from tests.cli.test_main import exit_status
from tests.experiment.files import DIGITS, written

ELSEWHERE = """
import multiprocessing
from coterie import Mistake
from coterie.data.sources.digits import digits

def load():
    if multiprocessing.parent_process() is not None:
        raise Mistake("data.path = digits.csv: there is no such file")
    return digits()
"""


def test_a_mistake_in_another_process_is_printed_once(
    capsys: pytest.CaptureFixture[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(spawn, "can_be_copied", lambda: False)
    (tmp_path / "elsewhere.py").write_text(ELSEWHERE)
    written(tmp_path, DIGITS.replace('"digits"', '"elsewhere:load"'))
    assert exit_status("run", "digits.toml", "--workers", "2") == 2
    out, err = capsys.readouterr()
    assert (out, err) == ("", "process 1 of this run: data.path = digits.csv: there is no such file\n")
    assert not Path("runs").exists()
