"""Participants without a server: what they compute, what crosses, and what a death costs."""

from __future__ import annotations

import os
import re
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

import coterie
from coterie import Mistake, Plan, Recipe, Round
from coterie.core import tree
from coterie.core.packing import pack, unpack
from coterie.core.transforms import cast
from coterie.engines.sequential import Sequential
from coterie.loop.checkpoint import Checkpoints
from coterie.peers.mailbox import Folder, Mailbox
from coterie.peers.network_mailbox import Network, serve
from coterie.peers.network_mailbox import main as network_main
from coterie.peers.participate import participate
from tests.federations import distance, ragged, seed_set

IDS = ("a", "b", "c")
CLIENTS = dict(zip(IDS, ragged(sizes=(7, 9, 5)).values(), strict=True))
SEED = seed_set()
FEDH2L = coterie.fedh2l(lr=0.1, batch_size=4, momentum=0.5)


def model(client: str) -> nn.Module:
    """Two architectures."""
    torch.manual_seed(3)
    sizes = [6, 3] if client == "b" else [6, 5, 3]
    layers = [nn.Linear(i, o) for i, o in pairwise(sizes)]
    return nn.Sequential(*layers).double()


def plan(client: str, recipe: Recipe = FEDH2L, rounds: int = 4, **options: object) -> Plan:
    return coterie.plan(
        recipe, model(client), {client: CLIENTS[client]}, rounds=rounds, rng_seed=1, seed_set=SEED, test=SEED,
        engine=Sequential(dtype=torch.float64), **options,
    )  # fmt: skip


def together(boxes: Callable[[], Mailbox], recipe: Recipe = FEDH2L, **options: object) -> dict[str, list[Round]]:
    """Each participant in a thread of its own, meeting the others in the mailbox alone."""
    ends: dict[str, list[Round]] = {}
    made = {client: plan(client, recipe, **options) for client in IDS}  # makes modules, which threads must not

    def work(client: str) -> None:
        ends[client] = list(participate(made[client], boxes(), deadline=30))

    threads = [threading.Thread(target=work, args=(client,)) for client in IDS]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
    return ends


@pytest.fixture
def port() -> Iterator[int]:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        number = free.getsockname()[1]
    store = serve("127.0.0.1", number)
    yield number
    del store


@pytest.mark.parametrize("recipe", [FEDH2L, coterie.fedh2l(lr=0.1, exchange="tables"), coterie.fedmd(lr=0.1)])
@pytest.mark.parametrize("kind", ["folder", "network"])
def test_they_compute_what_one_process_computes(recipe, kind, tmp_path, port):
    def box() -> Mailbox:
        return Folder(tmp_path, 3) if kind == "folder" else Network("127.0.0.1", port, 3)

    apart = together(box, recipe)
    simulated = list(
        coterie.federate(
            recipe, {client: model(client) for client in IDS}, CLIENTS, rounds=4, rng_seed=1, seed_set=SEED, test=SEED,
            engine=Sequential(dtype=torch.float64),
        )
    )[-1]  # fmt: skip
    for client in IDS:
        last = apart[client][-1]
        assert (last.round, last.reached, list(last.cohort)) == (4, 3, list(IDS))
        assert distance(last.weights(), simulated.weights(client)) < 1e-10
        assert last.test_accuracy is not None
        assert last.train_loss is not None


def assert_posteriors_alone(data: bytes) -> None:
    """One table [S, C] whose rows add up to one, and beside it no room for anything else."""
    message = unpack(data)
    assert {name: tuple(x.shape) for name, x in tree.flatten(message).items()} == {"posteriors": (len(SEED), 3)}
    assert torch.allclose(message["posteriors"].sum(-1), torch.ones(len(SEED), dtype=torch.float64))
    assert len(data) < tree.nbytes(message) + 200


def test_what_crosses_is_posteriors_and_nothing_else(tmp_path):
    """Every byte that leaves a process is in the folder: the last three rounds, a table [S, C] of each participant,
    whose rows add up to one."""
    rounds = together(lambda: Folder(tmp_path, 3))["a"]
    files = sorted(tmp_path.rglob("*"))
    messages = [file for file in files if file.is_file()]
    assert {file.parent.name for file in messages} == {"2", "3", "4"}
    assert {file.name for file in messages} == {f"{client}.safetensors" for client in IDS}
    for file in messages:
        assert_posteriors_alone(file.read_bytes())
    size = len(SEED) * 3 * 8
    assert [(r.bytes_up, r.bytes_down) for r in rounds] == [(size, 2 * size)] * 4


class Recorder:
    """A store that writes down everything it is told."""

    def __init__(self, store: Any, told: list[tuple[str, Any]]) -> None:
        self.store, self.told = store, told

    def set(self, key: str, value: Any) -> None:
        self.told.append((key, value))
        self.store.set(key, value)

    def append(self, key: str, value: str) -> None:
        self.told.append((key, value))
        self.store.append(key, value)

    def __getattr__(self, name: str) -> Any:
        assert name in ("get", "check", "delete_key"), f"a way to tell the store something that nobody looks at: {name}"
        return getattr(self.store, name)


@pytest.mark.parametrize("given", [[], ["somewhere"], ["99999999"], None])
def test_a_port_that_cannot_be_is_one_sentence_and_status_2(port, capfd, given):
    """None is a port that is taken."""
    with pytest.raises(SystemExit) as ended:
        network_main([str(port)] if given is None else given)
    assert ended.value.code == 2
    assert re.search(r"error: .*port", capfd.readouterr().err.splitlines()[-1])


def test_what_crosses_the_network_is_posteriors_names_and_the_round(port):
    """Every call that can carry something to the store: four rounds, a table [S, C] of each participant in each."""
    told: list[tuple[str, Any]] = []

    def box() -> Mailbox:
        network = Network("127.0.0.1", port, 3)
        network._store = Recorder(network._store, told)
        return network

    together(box)
    rounds = {str(number) for number in range(1, 5)}
    tables = [(key, value) for key, value in told if "/" in key]
    assert sorted(key for key, _ in tables) == sorted(f"{number}/{client}" for number in rounds for client in IDS)
    for _, value in tables:
        assert_posteriors_alone(value)
    others = [(key, value) for key, value in told if "/" not in key]
    assert {key for key, _ in others} == {*rounds, "newest"}
    assert all(value in rounds if key == "newest" else value.strip() in IDS for key, value in others)


def test_posteriors_may_be_rounded_on_their_way(tmp_path):
    last = together(lambda: Folder(tmp_path, 3), up=cast(torch.float16, back=torch.float64))["b"][-1]
    assert (last.bytes_up, last.bytes_down) == (len(SEED) * 3 * 2, 2 * len(SEED) * 3 * 2)


def test_a_message_that_cannot_be_used_is_left_out(tmp_path):
    """Half a file, another shape, and numbers that are not finite, in the names of three others; none stops "a"."""
    box = Folder(tmp_path, 1)
    (tmp_path / "1").mkdir()
    (tmp_path / "1" / "half.safetensors").write_bytes(pack({"posteriors": torch.zeros(len(SEED), 3)})[:50])
    box.put(1, "shape", {"posteriors": torch.zeros(3, len(SEED), dtype=torch.float64)})
    box.put(1, "nan", {"posteriors": torch.full((len(SEED), 3), float("nan"), dtype=torch.float64)})
    alone = list(participate(plan("a", rounds=1), Folder(tmp_path / "other", 1)))[-1]
    last = list(participate(plan("a", rounds=1), box))[-1]
    assert last.reached == 1
    assert {d["client"]: d["why"] for d in last.dropped} == {
        "half": f"has 50 bytes, and an honest message {3 * 8 * len(SEED)} at least",
        "nan": "posteriors holds numbers that are not finite",
        "shape": f"posteriors has shape [3, {len(SEED)}], not [{len(SEED)}, 3]",
    }
    assert distance(last.weights(), alone.weights()) == 0


def test_who_is_waited_for(tmp_path):
    """In round 1, and where nobody spoke in the round before, for as many as take part; else for those who did, until
    the deadline.
    """
    box, said = Folder(tmp_path, 2), {"x": torch.zeros(1)}
    box.put(1, "a", said)
    began = time.monotonic()
    assert set(box.get_all(1, deadline=0.2)) == {"a"}
    assert time.monotonic() - began >= 0.2
    box.put(1, "b", said)
    assert set(box.get_all(1, deadline=60)) == {"a", "b"}
    box.put(2, "a", said)
    assert set(box.get_all(2, deadline=0.2)) == {"a"}
    box.put(3, "a", said)
    assert set(box.get_all(3, deadline=60)) == {"a"}  # "b" did not speak in round 2
    box.put(3, "b", said)  # late, but back
    box.put(4, "a", said)
    threading.Timer(0.2, lambda: box.put(4, "b", said)).start()
    assert set(box.get_all(4, deadline=60)) == {"a", "b"}
    box.put(6, "a", said)  # to a folder in which round 5 is lost
    began = time.monotonic()
    assert set(box.get_all(6, deadline=0.2)) == {"a"}
    assert time.monotonic() - began >= 0.2
    assert box.newest() == 6
    assert not (tmp_path / "1" / "a.safetensors").exists()


def test_a_store_that_was_started_again_is_waited_in_for_all(port):
    """Two have saved round 2, and what the store held is gone: the first of them to start waits for the other."""
    box, said = Network("127.0.0.1", port, 2), {"x": torch.zeros(1)}
    box.put(3, "a", said)
    threading.Timer(0.2, lambda: Network("127.0.0.1", port, 2).put(3, "b", said)).start()
    assert set(box.get_all(3, deadline=60)) == {"a", "b"}


@pytest.mark.parametrize("kind", ["folder", "network"])
def test_the_mailbox_of_an_earlier_run_is_a_mistake(tmp_path, port, kind):
    """Where its last round would be this run's first. Who comes late to a run, or goes on in it, may."""
    box = Folder(tmp_path, 1) if kind == "folder" else Network("127.0.0.1", port, 1)
    done = list(participate(plan("a", rounds=4), box))
    with pytest.raises(Mistake, match="a has sent a message in round 4 of this mailbox already"):
        next(participate(plan("a", rounds=4), box))
    with pytest.raises(Mistake, match="the mailbox is in round 4, and this run has 3: give all"):
        next(participate(plan("b", rounds=3), box))
    assert [last.round for last in participate(plan("b", rounds=4), box)] == [4]
    checkpoints = Checkpoints(tmp_path / "state")
    checkpoints.save(done[-1])
    resume = checkpoints.load()
    assert list(participate(plan("a", rounds=4), box, resume=resume)) == []
    assert [last.round for last in participate(plan("a", rounds=5), box, 0.1, resume)] == [5]


def test_names_may_hold_anything(tmp_path, port):
    for box in (Folder(tmp_path, 2), Network("127.0.0.1", port, 2)):
        for name in ("../St. Mary's", ".hidden/ä"):
            box.put(1, name, {"x": torch.ones(2)})
        assert set(box.get_all(1, deadline=1)) == {"../St. Mary's", ".hidden/ä"}
    assert [path.name for path in tmp_path.iterdir()] == ["1"]


def test_a_mailbox_that_is_gone_is_a_mistake(tmp_path):
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        nobody = free.getsockname()[1]
    with pytest.raises(Mistake, match=f"no mailbox answers at 127.0.0.1:{nobody}"):
        Network("127.0.0.1", nobody, 2, timeout=0.2)
    with pytest.raises(Mistake, match=r"no mailbox answers at 127\.0\.0\.1:99999; start one there"):
        Network("127.0.0.1", 99999, 2)
    (tmp_path / "file").touch()
    with pytest.raises(Mistake, match="cannot be made the mailbox's folder"):
        Folder(tmp_path / "file", 2)


def test_only_one_s_own_plan_and_models_of_one_s_own(tmp_path):
    everyone = coterie.plan(FEDH2L, model("a"), CLIENTS, rounds=1, seed_set=SEED)
    with pytest.raises(Mistake, match="a participant's plan has one client, its own; this one has 3"):
        next(participate(everyone, Folder(tmp_path, 3)))
    with pytest.raises(Mistake, match="without a server only those algorithms can run"):
        next(participate(plan("a", coterie.fedavg(lr=0.1)), Folder(tmp_path, 3)))


def main(folder: str, client: str) -> None:
    """A participant as a process: it waits for the word to go, prints a line for each round, and stops at the word."""
    home = Path(folder)
    made, checkpoints, box = plan(client, rounds=10_000), Checkpoints(home / f"state-{client}"), Folder(home / "box", 3)
    (home / f"ready-{client}").touch()
    until(home / "go")
    for last in participate(made, box, deadline=3.0, resume=checkpoints.load()):
        checkpoints.save(last)
        print(last.round, ",".join(last.cohort), flush=True)
        if (home / "enough").exists():
            break
        time.sleep(0.05)


def until(file: Path, seconds: float = 60.0) -> None:
    """Wait for a file."""
    end = time.monotonic() + seconds
    while not file.exists():
        assert time.monotonic() < end, f"no {file.name} in {seconds} seconds"
        time.sleep(0.01)


def started(folder: Path, client: str) -> subprocess.Popen[str]:
    environment, home = os.environ | {"OMP_NUM_THREADS": "1"}, Path(__file__).parents[2]
    command = [sys.executable, "-m", "tests.peers.test_participate", str(folder), client]
    return subprocess.Popen(command, stdout=subprocess.PIPE, text=True, env=environment, cwd=home)


def heard(process: subprocess.Popen[str]) -> dict[int, str]:
    """What a process printed until it ended: round -> who was heard."""
    lines = process.communicate(timeout=60)[0].splitlines()
    assert process.returncode == 0
    return {int(number): cohort for number, cohort in (line.split() for line in lines)}


def test_one_is_killed_the_others_go_on_and_it_comes_back(tmp_path):
    """Three processes. "c" is killed and started again: "a" and "b" go through every round, first with "c", then
    without it, then with it again; "c" skips what it missed, and goes on from its own model."""
    processes = {client: started(tmp_path, client) for client in IDS}
    for client in IDS:
        until(tmp_path / f"ready-{client}")
    (tmp_path / "go").touch()
    until(tmp_path / "state-c" / "manifest-1.json")
    processes["c"].send_signal(signal.SIGKILL)
    processes["c"].communicate()
    newest = Folder(tmp_path / "box", 3).newest()
    until(tmp_path / "box" / str(newest + 3) / "a.safetensors")
    again = started(tmp_path, "c")
    while not (back := [f for f in (tmp_path / "box").glob("*/c.safetensors") if int(f.parent.name) > newest]):
        time.sleep(0.01)
    until(tmp_path / "box" / str(int(back[0].parent.name) + 5) / "a.safetensors")
    (tmp_path / "enough").touch()
    returned = heard(again)
    for rounds in (heard(processes["a"]), heard(processes["b"])):
        assert list(rounds) == list(range(1, len(rounds) + 1))
        assert (rounds[1], rounds[newest + 2]) == ("a,b,c", "a,b")
        assert list(rounds.values()).count("a,b,c") > newest
    assert min(returned) > newest
    messages = [path for path in (tmp_path / "box").rglob("*") if path.is_file() and not path.name.startswith(".")]
    assert {path.stem for path in messages} == set(IDS)
    for message in messages:  # all that the three processes have in common, beside the seed set
        assert_posteriors_alone(message.read_bytes())
    assert list(returned.values()).count("a,b,c") >= 2


if __name__ == "__main__":
    main(*sys.argv[1:])
