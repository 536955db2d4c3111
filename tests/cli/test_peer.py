"""`coterie peer` in processes of their own: the same model everywhere as in a simulation, whoever is killed."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from typer.testing import CliRunner

from coterie.cli.main import app
from tests.experiment.files import written

pytest.importorskip("cryptography")

EXPERIMENT = """
rounds = 6
[data]
source = "digits"
partition = "dirichlet"
alpha = 1.0
num_clients = 2
[model]
name = "logistic"
[algorithm]
name = "scaffold"
lr = 0.1
[engine]
name = "sequential"
threads = 1
"""
PROGRAM = "import sys; from coterie.cli.main import main; main(sys.argv[1:])"


def start(folder: Path, name: str, *more: str) -> subprocess.Popen[str]:
    command = [sys.executable, "-c", PROGRAM, "peer", "digits.toml", "--id", name, "--mailbox", "box", "--out", name]
    given = ["--roster", "roster.toml", "--key", f"{name}.key", "--deadline", "60", *more]
    environment = os.environ | {"OMP_NUM_THREADS": "1", "PYTHONPATH": str(Path(__file__).parents[2])}
    return subprocess.Popen(
        [*command, *given], cwd=folder, env=environment, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )


def test_one_is_killed_and_all_end_with_the_model_of_the_simulation(tmp_path: Path) -> None:
    written(tmp_path, EXPERIMENT)
    runner = CliRunner()
    lines = []
    for name in ("0", "1"):
        made = runner.invoke(app, ["peer-key", "--id", name, "--key", str(tmp_path / f"{name}.key")])
        lines.append(made.stdout.splitlines()[0])
    (tmp_path / "roster.toml").write_text("\n".join(lines))
    processes = [start(tmp_path, "0"), start(tmp_path, "1")]
    try:
        until = time.monotonic() + 120
        while not list(tmp_path.glob("1/checkpoint/manifest-*.json")):
            assert time.monotonic() < until
            assert processes[1].poll() is None, processes[1].communicate()
            time.sleep(0.01)
        processes[1].send_signal(signal.SIGKILL)
        processes[1].communicate()
        processes[1] = start(tmp_path, "1", "--resume")
        for process in processes:
            _, errors = process.communicate(timeout=120)
            assert process.returncode == 0, errors
    finally:
        for process in processes:
            process.kill()
    simulated = runner.invoke(app, ["run", str(tmp_path / "digits.toml"), "--out", str(tmp_path / "simulation")])
    assert simulated.exit_code == 0, simulated.output
    models = [(tmp_path / folder / "model.safetensors").read_bytes() for folder in ("simulation", "0", "1")]
    assert models[0] == models[1] == models[2]
    assert len((tmp_path / "1" / "rounds.jsonl").read_text().splitlines()) == 6
    assert not list((tmp_path / "box").rglob("*.key"))


def test_a_mistake_writes_no_run_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    written(tmp_path, EXPERIMENT)
    given = ["peer", "digits.toml", "--mailbox", "box", "--out", "run"]
    absent = CliRunner().invoke(app, [*given, "--id", "0", "--key", "absent.key"])
    assert "make one with `coterie peer-key`" in str(absent.exception)
    faults = CliRunner().invoke(app, [*given, "--id", "0", "faults.drop=0.1"])
    assert "[faults] belongs to a simulation" in str(faults.exception)
    assert not (tmp_path / "run").exists()
