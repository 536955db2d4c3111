"""What `coterie run` prints: text, JSON or nothing; in any encoding; and what the Tab key completes."""

import io
import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
from rich.console import Console

from coterie.cli.progress_line import ProgressLine
from coterie.cli.standard_streams import SteadyStream
from coterie.experiment.pace import Pace
from coterie.loop.plan import Round
from tests.cli.test_main import exit_status
from tests.experiment.files import DIGITS, written


@pytest.fixture(autouse=True)
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    written(tmp_path, DIGITS.replace("rounds = 3", "rounds = 2"))


def test_json_is_the_records_and_the_summary_and_all_else_is_on_standard_error(
    capsys: pytest.CaptureFixture[str],
) -> None:
    assert exit_status("run", "digits.toml", "--json") == 0
    out, err = capsys.readouterr()
    *records, summary = out.splitlines(keepends=True)
    assert "".join(records) == Path("runs/digits/rounds.jsonl").read_text()
    assert json.loads(summary) == json.loads(Path("runs/digits/summary.json").read_text())
    assert "writing to runs/digits" in err
    assert err.splitlines()[-1] == "runs/digits/report.html"
    assert exit_status("run", "digits.toml", "--json", "--quiet", "--resume") == 0
    assert capsys.readouterr() == (summary, "")


def test_quiet_prints_only_mistakes(capsys: pytest.CaptureFixture[str]) -> None:
    assert exit_status("run", "digits.toml", "--quiet") == 0
    assert capsys.readouterr() == ("", "")
    assert Path("runs/digits/summary.json").is_file()
    assert exit_status("run", "digits.toml", "--quiet") == 2
    assert "holds a run already" in capsys.readouterr().err


def test_a_stream_without_unicode_gets_plain_letters() -> None:
    raw = io.BytesIO()
    stream = SteadyStream(io.TextIOWrapper(raw, encoding="ascii"))
    stream.write("91.2 ± 0.3 % … Süd ━╸")
    stream.flush()
    assert raw.getvalue() == rb"91.2 +/- 0.3 % ... S\xfcd --"


def test_a_bar_on_a_terminal_without_unicode_is_plain(monkeypatch: pytest.MonkeyPatch) -> None:
    raw = io.BytesIO()
    stream = SteadyStream(io.TextIOWrapper(raw, encoding="ascii"))
    progress = ProgressLine("round", 1.0)
    progress.out = Console(file=stream, force_terminal=True, width=100)  # type: ignore[arg-type]
    progress.begin(4, 0)
    progress.show(2, "accuracy 50.00 %", "9 examples/s", "work 100 %")
    progress.close()
    shown = raw.getvalue().decode("ascii")
    assert "2/4" in shown
    assert "accuracy 50.00 %" in shown
    assert "9 examples/s  work 100 %" in shown


def test_a_plain_line_says_how_long_the_rest_takes(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Rounds 11 and 12 of 20 took 6 seconds together, so the other 8 take 24."""
    clock = [100.0]
    monkeypatch.setattr("time.monotonic", lambda: clock[0])
    progress = ProgressLine("round", 1.0)
    progress.begin(20, 10)
    clock[0] = 106.0
    progress.show(12, "accuracy 50.00 %", "9 examples/s")
    assert capsys.readouterr().out == "round 12/20  accuracy 50.00 %  9 examples/s  24 s left\n"


def test_the_pace_of_two_rounds() -> None:
    """The first round works for 2 s of 3, and its checkpoint takes 1; the second works for 4, and ends at 9.

    So evaluation takes 3 - 2 = 1 s in the first round and 9 - (2 + 4) - 1 = 2 s until the end of the second.
    """
    weights = {"a": {"processed": 30.0}, "b": {"processed": 50.0}}

    def round_of(seconds: float, elapsed: float, reached: int = 2) -> Round:
        return Round(1, seconds, 10.0 + elapsed, "ab", reached, [], 0, 0, {}, {}, None, None, client_weights=weights)  # type: ignore[arg-type]

    first = Pace().add(round_of(2.0, 3.0), before=10.0)
    assert (first.examples, first.work, first.evaluation) == (80.0, 2.0, 1.0)
    second = Pace(first.examples, first.work, first.evaluation, checkpoints=1.0).add(round_of(4.0, 9.0), before=10.0)
    assert second == Pace(160.0, 6.0, 2.0, 1.0, 0.0)
    assert second.examples_per_second() == pytest.approx(160 / 6)
    weights.clear()
    assert second.add(round_of(1.0, 10.0), before=10.0).examples_per_second() is None  # hidden by a secure sum


def test_the_tab_key_completes_keys_of_the_file(tmp_path: Path) -> None:
    words = {"COMP_WORDS": f"coterie run {tmp_path}/digits.toml algorithm.mom", "COMP_CWORD": "3"}
    found = subprocess.run(
        [sys.executable, "-c", "from coterie.cli.main import main; main()"],
        env={**os.environ, **words, "_COTERIE_COMPLETE": "complete_bash"},
        cwd=Path(__file__).parents[2],
        capture_output=True,
        text=True,
    )
    assert (found.stdout.split(), found.stderr) == (["algorithm.momentum="], "")
