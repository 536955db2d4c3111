"""coterie's own rounds over the NVFlare carrier, in processes of their own on this machine."""

import json
import os
import shutil
import subprocess
import sys
from contextlib import ExitStack
from pathlib import Path
from unittest.mock import patch

import pytest

import coterie

pytest.importorskip("nvflare")

from coterie.silos import certificates
from coterie.silos.nvflare_carrier import free_port
from coterie.silos.project import create_project, join_all
from tests.deploy.party import NAMES
from tests.silos.rehearsal import Rehearsal, wait_until

PARTY = (sys.executable, "-m", "tests.deploy.party")


def start(stack, *command, **options):
    """Start a program that ends with its standard input, at the latest at the end of the test."""
    process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, **options)
    stack.callback(process.wait, 30.0)
    stack.callback(process.stdin.close)
    return process


def run(folder, **options):
    """Run a federation of three silos; return its rounds, and the weights of it and of the simulation."""
    options = [f"--{name}={value}" for name, value in options.items()]
    with patch.object(certificates, "KEY_BITS", 2048):
        create_project(folder / "hub", "trial", "localhost", free_port(), NAMES)
        kits = join_all(folder / "hub", folder / "kits", NAMES)
    with ExitStack() as stack:
        silos = {name: start(stack, *PARTY, "silo", kits[name], folder / "at" / name, *options) for name in NAMES}
        coordinator = start(stack, *PARTY, "coordinator", folder / "hub", folder / "weights", *options)
        lines = coordinator.stdout.read().splitlines()
        assert coordinator.wait(60.0) == 0
        print(*lines, sep="\n")
        for silo in silos.values():
            silo.stdin.close()
        simulation = start(stack, *PARTY, "simulation", folder / "simulated", *options)
        assert simulation.wait(120.0) == 0
    rounds = [json.loads(line) for line in lines if line.startswith("{")]
    return rounds, (folder / "weights").read_bytes(), (folder / "simulated").read_bytes()


def test_fedavg_on_digits_gives_the_simulations_weights(tmp_path):
    rounds, weights, simulated = run(tmp_path, rounds=5, quorum=3)
    assert [round["reached"] for round in rounds] == [3] * 5
    assert weights == simulated


def test_messages_of_a_hundred_megabytes(tmp_path):
    """A layer of 360,000 units: 27 million numbers, 108 MB a message; a step or two in each round."""
    rounds, weights, simulated = run(tmp_path, rounds=2, quorum=3, hidden=360_000, batch=480, timeout=300)
    assert [round["reached"] for round in rounds] == [3, 3]
    assert len(weights) > 100_000_000
    assert weights == simulated


CALLER = """

class SiloRelay(SiloRelay):
    @collab.publish
    def answer(self, message):
        try:
            answers = collab.get_clients(["north"])(blocking=True, timeout=20.0).answer(b"from south")
            got = [dict(answers) if isinstance(answers, dict) else list(answers), getattr(answers, "failures", None)]
        except Exception as error:
            got = error
        Path(os.environ["GOT"]).write_text(repr(got))
        return super().answer(message)
"""


def test_a_silo_that_calls_another_one_is_refused(tmp_path):
    """South runs code of its own, which asks north instead of the coordinator."""
    own = tmp_path / "own"
    shutil.copytree(Path(coterie.__file__).parent, own / "coterie", ignore=shutil.ignore_patterns("*.safetensors"))
    with (own / "coterie/silos/nvflare_relay.py").open("a") as file:
        file.write(CALLER)
    script = (
        "import sys; from pathlib import Path; from coterie.silos.nvflare_silo import NVFlareSilo\n"
        "with NVFlareSilo(Path(sys.argv[1])) as silo: silo.serve(lambda message: message)\n"
    )
    asked = []
    with Rehearsal(tmp_path / "rehearsal", ("north", "south")) as rehearsal, ExitStack() as stack:
        rehearsal.silo("north", lambda message: asked.append(message) or message)
        environment = os.environ | {"PYTHONPATH": str(own), "GOT": str(tmp_path / "got")}
        south = subprocess.Popen(
            [sys.executable, "-c", script, str(rehearsal.kits["south"])], env=environment, cwd=tmp_path
        )
        stack.callback(south.wait, 30.0)
        stack.callback(south.kill)
        coordinator = rehearsal.coordinator(quorum=2)
        assert wait_until(lambda: coordinator.sites() == ("north", "south"), 90.0)
        answers = dict(coordinator.ask({"south": b"1"}, 120.0))
        got = (tmp_path / "got").read_text()
        print(answers, got)
        assert answers == {"south": b"1"}
        assert "only the coordinator may ask a silo" in got
        assert asked == []
