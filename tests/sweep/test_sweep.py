"""`coterie sweep` as a user types it: runs side by side, failures that are named, and mistakes before it begins."""

import csv
import json
import tomllib
from pathlib import Path

import pytest

from coterie.experiment.run import run
from coterie.experiment.settings import load_settings
from coterie.sweep import run_sweep
from coterie.track.folder_lock import hold_lock
from tests.cli.test_main import exit_status
from tests.experiment.files import DIGITS, written
from tests.report.test_pages import Page

OWN = """
import multiprocessing, os, signal
from coterie.data import load

def digits(fault: str = "none"):
    if fault == "killed" and multiprocessing.parent_process() is not None:
        os.kill(os.getpid(), signal.SIGKILL)
    return load("digits")
"""


@pytest.fixture(autouse=True)
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Make a working directory with an experiment whose source can fail in a run's own process."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "own.py").write_text(OWN)
    return written(tmp_path, DIGITS.replace('"digits"', '"own:digits"').replace("rounds = 3", "rounds = 2"))


def test_runs_side_by_side_are_those_of_coterie_run(capsys: pytest.CaptureFixture[str]) -> None:
    """One run is killed, and the others finish. The one that is left is, bit for bit, what `run` makes of its settings.

    The speed-up is that of the first run over itself, since it reaches 5 % in its first round.
    """
    arguments = ["sweep", "digits.toml", "fault=none,killed", "target_accuracy=0.05"]
    assert exit_status(*arguments, "--jobs", "2") == 1
    out, err = capsys.readouterr()
    assert "1 run failed: fault=killed\nfault=killed: it was killed by signal 9" in err
    assert out.splitlines()[-2:] == ["runs/digits-sweep/sweep.csv", "runs/digits-sweep/report.html"]
    folder = Path("runs/digits-sweep")
    with (folder / "sweep.csv").open(newline="") as file:
        good, bad = csv.DictReader(file)
    assert (good["run"], good["data.fault"], good["state"], good["why"]) == ("fault=none", "none", "finished", "")
    assert (good["rounds_to_target"], good["speed_up"], good["rounds"]) == ("1.0", "1.0", "1")
    assert (bad["run"], bad["state"], bad["test_accuracy"]) == ("fault=killed", "failed", "")
    assert "signal 9" in bad["why"]
    run(load_settings(Path("digits.toml"), ["evaluate.target_accuracy=0.05"]), Path("alone"))
    for name in ("model.safetensors", "clients.json"):
        assert (folder / "runs/fault=none" / name).read_bytes() == Path("alone", name).read_bytes()
    alone = tomllib.loads(Path("alone/config.toml").read_text())["engine"]
    assert tomllib.loads((folder / "runs/fault=none/config.toml").read_text())["engine"] == alone
    page = Page(folder / "report.html")
    assert "fault=killed failed: it was killed by signal 9" in page.text
    assert page.links == ["data:,", "runs/fault=none/report.html"]

    finished = (folder / "runs/fault=none/summary.json").stat().st_mtime_ns
    assert exit_status(*arguments, "--jobs", "2") == 2
    assert "holds a sweep already; continue it with --resume" in capsys.readouterr().err
    assert exit_status("sweep", "digits.toml", "--resume") == 1  # the run that failed is tried again
    assert "1 run, 1 at once, 1 of 2 done before" in capsys.readouterr().out
    assert (folder / "runs/fault=none/summary.json").stat().st_mtime_ns == finished


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        (["lr=0.1,-1"], "algorithm.lr = -1: it must be a number above 0 (in the run lr=-1)"),
        (["algorithm.mometum=0,0.9"], "did you mean algorithm.momentum?"),
        (["rounds=0,1"], "rounds = 0: it must be"),
        (["cohort.size=5,50"], "(in the run size=50)"),
        (["lr=0.1,0.2", "--jobs", "0"], "--jobs 0: it must be 1 or more"),
        (["lr=0.1,0.2", "--baseline", "lr=3"], "--baseline lr=3: it must be the name of a run, such as lr=0.1"),
        (["lr=0.1,0.2", "--out", "digits.toml/sweep"], "digits.toml/sweep: cannot be "),
        (["lr=0.1,0.2", "--slurm", "--jobs", "0"], "--jobs 0: it must be 1 or more"),
    ],
)
def test_a_mistake_is_found_before_anything_is_written(
    capsys: pytest.CaptureFixture[str], arguments: list[str], sentence: str
) -> None:
    assert exit_status("sweep", "digits.toml", *arguments) == 2
    out, err = capsys.readouterr()
    assert sentence in err
    assert err.count("\n") == 1
    assert out == ""
    assert sorted(p.name for p in Path().iterdir() if p.name != "__pycache__") == ["digits.toml", "own.py"]


@pytest.mark.parametrize("argument", ["lr=0.1,0.2", "stage.1.algorithm.lr=0.1,0.2", "rng_seed=0,1"])
def test_a_chain_is_not_swept(argument: str, capsys: pytest.CaptureFixture[str]) -> None:
    Path("chain.toml").write_text('[[stage]]\nname = "one"\n')
    assert exit_status("sweep", "chain.toml", argument) == 2
    assert "chain.toml: is a chain of stages, and a sweep varies one experiment" in capsys.readouterr().err


def test_an_array_job_is_printed_and_nothing_is_written(capsys: pytest.CaptureFixture[str]) -> None:
    assert exit_status("sweep", "digits.toml", "lr=0.1,0.2", "--slurm", "--out", "runs/s") == 0
    out = capsys.readouterr().out
    assert "#SBATCH --array=0-1\n" in out
    assert "#   coterie sweep digits.toml algorithm.lr=0.1,0.2 --out runs/s --resume\n" in out
    assert (
        "1) coterie run digits.toml algorithm.lr=0.2 engine.workers=1 engine.threads=1 --out runs/s/runs/lr=0.2" in out
    )
    assert not Path("runs").exists()


def test_json_is_the_rows_of_the_table_and_quiet_prints_only_failures(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """The first run is made in this process, and the second fails."""

    def run_here(points, folder, jobs, watch):  # type: ignore[no-untyped-def]
        for point in points[:1]:
            watch.start(point)
            run(point.settings, folder / "runs" / point.name, resume=True)
            watch.end(point, None)
        return {points[-1].name: "it was killed"}

    monkeypatch.setattr(run_sweep, "run_side_by_side", run_here)
    arguments = ["sweep", "digits.toml", "lr=0.1,0.2", "rounds=1"]
    assert exit_status(*arguments, "--json") == 1
    out, err = capsys.readouterr()
    rows = [json.loads(line) for line in out.splitlines()]
    with Path("runs/digits-sweep/sweep.csv").open(newline="") as file:
        table = list(csv.DictReader(file))
    assert [{name: "" if cell is None else str(cell) for name, cell in row.items()} for row in rows] == table
    assert [row["state"] for row in rows] == ["finished", "failed"]
    assert "2 runs, " in err
    assert "runs/digits-sweep/report.html\n" in err
    assert exit_status(*arguments, "--resume", "--quiet") == 1
    assert capsys.readouterr() == ("", "1 run failed: lr=0.2\nlr=0.2: it was killed\n")
    assert exit_status(*arguments, "--out", "other", "--slurm", "--json") == 2
    assert "--slurm prints a script, so it goes with neither --quiet nor --json" in capsys.readouterr().err


def test_two_sweeps_do_not_write_into_one_folder(capsys: pytest.CaptureFixture[str]) -> None:
    Path("s").mkdir()
    with hold_lock(Path("s")):
        assert exit_status("sweep", "digits.toml", "lr=0.1,0.2", "--out", "s") == 2
    assert "s: another sweep is writing there now" in capsys.readouterr().err
    assert [path.name for path in Path("s").iterdir()] == [".lock"]


def test_a_grid_is_widened_until_the_best_rate_lies_inside(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """The runs are made in this process: 0.02 is better than 0.01, then 0.04 is better, and so on up to a limit.

    With one widening allowed, the grid ends at 0.04, and the sweep says how to go on.
    """
    started = []

    def run_here(points, folder, jobs, watch):  # type: ignore[no-untyped-def]
        for point in points:
            started.append(point.name)
            run(point.settings, folder / "runs" / point.name)
        return {}

    monkeypatch.setattr(run_sweep, "run_side_by_side", run_here)
    monkeypatch.setattr(run_sweep, "MAX_WIDENINGS", 1)
    assert exit_status("sweep", "digits.toml", "lr=0.01,0.02", "--widen", "--out", "s") == 0
    out = capsys.readouterr().out
    assert started == ["lr=0.01", "lr=0.02", "lr=0.04"]
    assert "best algorithm.lr: 0.04, the largest of the grid, so a better one may lie outside" in out
    assert "widen it with\n  coterie sweep digits.toml lr=0.01,0.02 --out s --widen --resume\n" in out
    with Path("s/sweep.csv").open(newline="") as file:
        assert [row["algorithm.lr"] for row in csv.DictReader(file)] == ["0.01", "0.02", "0.04"]
    assert 'grid = ["algorithm.lr=0.01,0.02,0.04"]' in Path("s/sweep.toml").read_text()
    assert "Best algorithm.lr: 0.04, the largest of the grid" in Page(Path("s/report.html")).text
