"""`coterie peer`, each on its own file: the same model everywhere as in a simulation, though one is killed."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest
from typer.testing import CliRunner

from coterie.cli.main import app
from tests.experiment.files import written
from tests.experiment.test_peer_rows import HEADER, ROWS, experiment_file, own_file

pytest.importorskip("cryptography")

PROGRAM = "import sys; from coterie.cli.main import main; main(sys.argv[1:])"
NAMES = ("east", "north")


def command(folder: Path, name: str) -> list[str]:
    """What a participant types."""
    given = ["--id", name, "--mailbox", "box", "--out", name, "--roster", "roster.toml", "--key", f"{name}.key"]
    return ["peer", "hospitals.toml", own_file(folder, name), *given, "--deadline", "60", "--start-deadline", "100"]


def start(folder: Path, name: str, *more: str) -> subprocess.Popen[str]:
    environment = os.environ | {"OMP_NUM_THREADS": "1", "PYTHONPATH": str(Path(__file__).parents[2])}
    return subprocess.Popen(
        [sys.executable, "-c", PROGRAM, *command(folder, name), *more],
        cwd=folder, env=environment, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
    )  # fmt: skip


def kill_and_start_again(folder: Path, name: str) -> tuple[int | None, str]:
    """Run a participant that is killed after its first checkpoint; return how its second process ends."""
    first = start(folder, name)
    until = time.monotonic() + 100
    while not list((folder / name).glob("checkpoint/manifest-*.json")) and first.poll() is None:
        if time.monotonic() > until:
            break
        time.sleep(0.01)
    first.send_signal(signal.SIGKILL)
    first.communicate()
    again = start(folder, name, "--resume")
    _, errors = again.communicate(timeout=100)
    return again.returncode, errors


@pytest.mark.long
def test_one_is_killed_and_all_end_with_the_model_of_the_simulation(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    experiment_file(tmp_path)
    rows = [f"{name},{row}" for name in NAMES for row in ROWS[name]]
    (tmp_path / "all.csv").write_text("\n".join([HEADER, *rows]))
    runner, lines = CliRunner(), []
    for name in NAMES:
        made = runner.invoke(app, ["peer-key", "--id", name, "--key", f"{name}.key"])
        lines.append(made.stdout.splitlines()[0])
    (tmp_path / "roster.toml").write_text("\n".join(lines))
    ends: list[tuple[int | None, str]] = []
    other = threading.Thread(target=lambda: ends.append(kill_and_start_again(tmp_path, "north")))
    other.start()
    mine = runner.invoke(app, [*command(tmp_path, "east"), "--json"])
    other.join()
    assert mine.exit_code == 0, mine.output
    assert ends[0][0] == 0, ends[0][1]
    simulated = runner.invoke(app, ["run", "hospitals.toml", "--out", "simulation"])
    assert simulated.exit_code == 0, simulated.output
    models = [(tmp_path / folder / "model.safetensors").read_bytes() for folder in ("simulation", *NAMES)]
    assert models[0] == models[1] == models[2]
    inputs = [(tmp_path / folder / "inputs.json").read_bytes() for folder in ("simulation", *NAMES)]
    assert inputs[0] == inputs[1] == inputs[2]
    assert len((tmp_path / "north" / "rounds.jsonl").read_text().splitlines()) == 3
    assert not list((tmp_path / "box").rglob("*.key"))
    *records, summary = mine.stdout.splitlines(keepends=True)
    assert "".join(records) == (tmp_path / "east" / "rounds.jsonl").read_text()
    assert json.loads(summary) == json.loads((tmp_path / "east" / "summary.json").read_text())
    finished = runner.invoke(app, [*command(tmp_path, "east"), "--resume", "--quiet"])
    assert (finished.exit_code, finished.output) == (0, "")
    finished = runner.invoke(app, [*command(tmp_path, "east"), "--resume"])
    assert "finished already, after 3 rounds" in finished.output


EXPERIMENT = """
rounds = 2
[data]
source = "digits"
num_clients = 2
[model]
name = "logistic"
[algorithm]
name = "fedavg"
lr = 0.1
"""


def test_a_mistake_writes_no_run_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    written(tmp_path, EXPERIMENT)
    given = ["peer", "digits.toml", "--mailbox", "box", "--out", "run", "--id", "0"]
    absent = CliRunner().invoke(app, [*given, "--key", "absent.key"])
    assert "make one with `coterie peer-key`" in str(absent.exception)
    faults = CliRunner().invoke(app, [*given, "faults.drop=0.1"])
    assert "[faults] belongs to a simulation" in str(faults.exception)
    for key in ("target_accuracy=0.9", "patience=2", 'target={metric = "accuracy", value = 0.9}'):
        target = CliRunner().invoke(app, [*given, f"evaluate.{key}"])
        assert "one of them would stop alone" in str(target.exception)
    assert not (tmp_path / "run").exists()
