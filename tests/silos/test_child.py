"""A silo whose work is done in a child process survives its child."""

import os
import signal
from pathlib import Path

import torch

from coterie.silos.carrier import Answer
from coterie.silos.child import Child
from coterie.silos.in_process import InProcess
from coterie.silos.message import read_message, write_message
from coterie.silos.silo import Silo
from tests.common.recipes import RECIPES
from tests.silos.deployment import Deployment, same_bits, server_state


def south(folder: Path) -> Answer:
    """The silo south; its process is killed in its first try at the work of round 2, as when memory runs out."""
    torch.set_num_threads(1)  # as in the tests' own process: it decides in which order sums are taken
    both = Deployment(RECIPES["scaffold"], folder)
    own = {client: data for client, data in both.clients.items() if both.hosts[client] == "south"}
    silo = Silo(both.plan(own, None), folder / "south", experiment="a file")

    def answer(request: bytes) -> bytes:
        if b'"kind": "work"' in request[:200] and b'"round": 2' in request[:300] and not (folder / "died").exists():
            (folder / "died").touch()
            os.kill(os.getpid(), signal.SIGKILL)
        return silo(request)

    return answer


def test_the_death_of_a_child_is_one_missing_answer(tmp_path: Path) -> None:
    """Round 2 goes on without the silo; in round 3 a new child continues from the states on the disk."""
    both = Deployment(RECIPES["scaffold"], tmp_path)
    child = Child(south, tmp_path)
    deployed = both.deploy(InProcess({**both.silos(), "south": child}))
    child.close()
    simulated = both.simulate([(2, "2"), (2, "4")])
    why = (
        "south: the process that works at the silo was killed, perhaps since memory ran out; the next request starts a "
        "new one"
    )
    assert [r.dropped for r in deployed] == [[], [{"client": c, "why": why} for c in "24"], []]
    assert same_bits(server_state(simulated[-1]), server_state(deployed[-1]))


def test_a_child_that_cannot_begin_says_why(tmp_path: Path) -> None:
    child = Child(open, tmp_path / "wards.csv")
    answer = read_message(child(write_message({"kind": "work", "run": "a", "experiment": "b"})))
    assert (answer.text("kind"), answer.text("run")) == ("failed", "a")
    assert answer.text("why").startswith("FileNotFoundError: [Errno 2] No such file or directory")
