"""A liar who can write into the mailbox: what it leaves there costs nobody a model, and no more than a deadline."""

from __future__ import annotations

import json
import os
import random
import socket
import struct
import threading
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

import coterie
from coterie import Mistake, Round
from coterie.aggregation import aggregation
from coterie.core.packing import pack
from coterie.core.printable import printable
from coterie.loop.store import Store
from coterie.loop.template import Templates
from coterie.peers import network_mailbox
from coterie.peers.mailbox import MAX_NAMES, Folder, spell
from coterie.peers.message import Unusable
from coterie.peers.network_mailbox import MAX_MESSAGE_BYTES, Network
from coterie.peers.participate import _assignment, _form, participate
from tests.federations import distance
from tests.peers.test_participate import SEED, model, plan, port

__all__ = ["port"]

ROUNDS = 2


def table(value: float = 1 / 3, **options: Any) -> Tensor:
    return torch.full((len(SEED), 3), value, **{"dtype": torch.float64, **options})


def leaf(index: tuple[int, ...], value: float) -> Tensor:
    """An honest table with one wrong number."""
    changed = table()
    changed[index] = value
    return changed


TREES: dict[str, Any] = {
    "huge": {"posteriors": table(1e30)},
    "largest": {"posteriors": table(1.7e308)},
    "negative": {"posteriors": leaf((0, 0), -0.5)},
    "above one": {"posteriors": leaf((0, 0), 1.5)},
    "a row of zeros": {"posteriors": table() * (torch.arange(len(SEED)) > 0)[:, None]},
    "rows of two": {"posteriors": table(2 / 3)},
    "one row off by a hundredth": {"posteriors": leaf((3, 1), 1 / 3 + 0.01)},
    "nan": {"posteriors": leaf((2, 2), float("nan"))},
    "infinite": {"posteriors": leaf((2, 2), float("inf"))},
    "float32": {"posteriors": table(dtype=torch.float32)},
    "whole numbers": {"posteriors": table(1, dtype=torch.int64)},
    "half": {"posteriors": torch.ones(2 * len(SEED), 6, dtype=torch.float16)},
    "complex": {"posteriors": torch.ones(len(SEED), 3, dtype=torch.complex64)},
    "on its side": {"posteriors": table().T.contiguous()},
    "one row more": {"posteriors": torch.full((len(SEED) + 1, 3), 1 / 3, dtype=torch.float64)},
    "flat": {"posteriors": table().reshape(-1)},
    "nothing": {},
    "an empty branch": {"posteriors": {}},
    "a branch": {"posteriors": {"": table()}},
    "another name": {"posterior": table()},
    "a name that clears the screen": {"\x1b[2J\nround 9": table()},
    "one leaf more": {"posteriors": table(), "weights": torch.zeros(3)},
    "a megabyte more": {"posteriors": table(), "weights": torch.zeros(2**18)},
}
"""Trees of tensors that no honest participant sends."""


def with_structure(structure: object) -> bytes:
    """An honest message, except for what it says of its structure."""
    data, metadata = pack({"posteriors": table()}), {"structure": structure if isinstance(structure, str) else ""}
    length = int.from_bytes(data[:8], "little")
    header = json.loads(data[8 : 8 + length]) | {"__metadata__": metadata if structure is not None else {}}
    text = json.dumps(header).encode()
    text += b" " * (-len(text) % 8)
    return struct.pack("<Q", len(text)) + text + data[8 + length :]


HONEST = pack({"posteriors": table()})

BYTES: dict[str, bytes] = {
    "empty": b"",
    "one byte short": HONEST[:-1],
    "one byte more": HONEST + b"\0",
    "half a file": HONEST[: len(HONEST) // 2],
    "zeros": bytes(len(HONEST)),
    "ones": b"\xff" * len(HONEST),
    "text": b"posteriors\n" * (len(HONEST) // 11),
    "a pickle": b"\x80\x04cos\nsystem\n(S'true'\ntR." + bytes(len(HONEST)),
    "a header without an end": struct.pack("<Q", 2**62) + HONEST[8:],
    "a header of nothing": struct.pack("<Q", 0) + HONEST[8:],
    "no structure": with_structure(None),
    "a structure that is no JSON": with_structure("{"),
    "a structure that is a list": with_structure('["posteriors"]'),
    "a structure that is a number": with_structure("7"),
    "a structure that is null": with_structure("null"),
    "a structure with a number": with_structure('{"posteriors": 5}'),
    "a structure with a list": with_structure('{"posteriors": []}'),
    "a structure with another name": with_structure('{"weights": null}'),
    "a structure without an end": with_structure('{"a":' * 500 + "null" + "}" * 500),
    "a deep structure": with_structure('{"a":' * 700 + "{}" + "}" * 700),
    "a structure of a million digits": with_structure("1" * 3000),
}


def plant_places(folder: Path) -> dict[str, Callable[[], object]]:
    """What may lie in the place of a message, by its name."""
    target = folder.parent.parent / "honest.safetensors"
    target.write_bytes(HONEST)

    def at(name: str) -> Path:
        return folder / f"{name}.safetensors"

    def make_socket() -> None:
        here = Path.cwd()
        os.chdir(folder)  # the path of a socket must be short
        try:
            socket.socket(socket.AF_UNIX).bind(at("socket").name)
        finally:
            os.chdir(here)

    def make_sparse() -> None:
        with at("sparse").open("wb") as file:
            file.truncate(2**40)

    return {
        "pipe": lambda: os.mkfifo(at("pipe")),
        "endless": lambda: at("endless").symlink_to("/dev/zero"),
        "random": lambda: at("random").symlink_to("/dev/urandom"),
        "linked": lambda: at("linked").symlink_to(target),
        "nowhere": lambda: at("nowhere").symlink_to(folder / "no such file"),
        "loop": lambda: at("loop").symlink_to(at("loop").name),
        "kernel": lambda: at("kernel").symlink_to("/proc/self/mem"),
        "folder": lambda: at("folder").mkdir(),
        "socket": make_socket,
        "sparse": make_sparse,
    }


NAMES: tuple[bytes, ...] = (
    b"\xff\xfe", b"caf\xe9", "%C3%A9 é".encode(), b"a b", b"%zz", b"%", b"%ff", b"%2e", b"a.b", b"%61", b"..", b"-",
    b"line\nround 9: heard all", b"\x1b[2J", "²".encode(), b"x" * 230, b"%F0%9F%98%80" * 16,
)  # fmt: skip
"""Names of files that are names of no participant, or that print badly; each lies there with an honest length."""

ROUND_FOLDERS: tuple[bytes, ...] = (
    "²".encode(), "٣".encode(), b"0", b"-1", b"007", b"1e3", b"9" * 200, b"999999999", b"\xff", b"2 ", b"+5", b"1_000"
)  # fmt: skip


def inside(folder: Path, name: bytes) -> Path:
    """A path whose last part may be no text."""
    return Path(os.fsdecode(os.fsencode(folder) + b"/" + name))


def plant(box: Path, rng: random.Random) -> int:
    """Leave everything above in each round of a mailbox, in an order of its own; return how many things there are."""
    planted = 0
    for number in range(1, ROUNDS + 1):
        folder = box / str(number)
        folder.mkdir(parents=True)
        files = {name: pack(t) for name, t in TREES.items()} | BYTES
        places = plant_places(folder)
        acts: list[Callable[[], object]] = [
            *(partial((folder / f"{spell(name)}.safetensors").write_bytes, data) for name, data in files.items()),
            *places.values(),
            *(partial(inside(folder, name + b".safetensors").write_bytes, b"\1" * 300) for name in NAMES),
        ]
        rng.shuffle(acts)
        for act in acts:
            act()
        planted += len(acts)
    for name in ROUND_FOLDERS:
        folder = inside(box, name)
        folder.mkdir()
        (folder / "north.safetensors").write_bytes(BYTES["half a file"])
    (box / "77").symlink_to("/proc")
    (box / "78").write_bytes(b"")
    os.mkfifo(box / "79")
    return planted + len(ROUND_FOLDERS) + 3


def run_two(box: Path) -> dict[str, list[Round]]:
    """Two honest participants in threads, with a deadline that they reach only if they wait for a liar."""
    ends: dict[str, list[Round]] = {}
    made = {client: plan(client, rounds=ROUNDS) for client in ("a", "b")}

    def work(client: str) -> None:
        ends[client] = list(participate(made[client], Folder(box, 2), deadline=60))

    threads = [threading.Thread(target=work, args=(client,), daemon=True) for client in made]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(50)
    return ends


def test_whatever_a_liar_plants_two_participants_learn_as_if_it_were_absent(tmp_path: Path) -> None:
    number = plant(tmp_path / "box", random.Random(5))
    assert number > 150
    quiet, hostile = run_two(tmp_path / "quiet"), run_two(tmp_path / "box")
    for client in ("a", "b"):
        for with_liar, without in zip(hostile[client], quiet[client], strict=True):
            assert distance(with_liar.weights(), without.weights()) == 0
            assert with_liar.test_accuracy == without.test_accuracy
            assert with_liar.reached == without.reached == 2
            names = len(TREES) + len(BYTES) + len(NAMES) + 10 - 1  # a hidden file is no message
            assert len(with_liar.dropped) == len({entry["client"] for entry in with_liar.dropped}) == names
            assert all(entry["why"] for entry in with_liar.dropped)
            json.dumps(with_liar.record())
    why = {entry["client"]: entry["why"] for entry in hostile["a"][-1].dropped}
    assert why["huge"] == "posteriors hold numbers outside 0 to 1, so they are no probabilities"
    assert why["rows of two"] == "posteriors have rows that do not sum to 1, so they are no probabilities"
    assert why["pipe"] == why["endless"] == why["linked"] == why["folder"] == "is not a regular file"
    assert why["sparse"].startswith("has 1099511627776 bytes, and an honest message")
    assert why["a structure with a number"].startswith("cannot be read (")
    assert why["\\udcff\\udcfe.safetensors (misspelled)"] == "is not a name that any participant writes"


def test_a_participant_starts_again_in_a_hostile_mailbox(tmp_path: Path) -> None:
    """Where the next round's folder and the own message's place are taken by something else."""
    box = tmp_path / "box"
    plant(box, random.Random(6))
    (box / "3").symlink_to("/proc")
    (box / "4" / "a.safetensors").mkdir(parents=True)
    (box / "5").write_bytes(b"")
    rounds = list(participate(plan("a", rounds=5), Folder(box, 1), deadline=0.2))
    assert [(r.round, r.reached) for r in rounds] == [(number, 1) for number in range(1, 6)]
    assert Folder(box, 1).senders(5) == {"a"}


def test_a_liar_alone_costs_no_more_than_the_deadline(tmp_path: Path) -> None:
    """Two are waited for, and none of the liar's messages counts as the second."""
    plant(tmp_path / "box", random.Random(7))
    began = time.monotonic()
    (only,) = participate(plan("a", rounds=1), Folder(tmp_path / "box", 2), deadline=1.0)
    assert 1.0 <= time.monotonic() - began < 10
    assert only.reached == 1


def test_more_names_than_anyone_reads(tmp_path: Path) -> None:
    folder = tmp_path / "1"
    folder.mkdir()
    (folder / "x.safetensors").write_bytes(b"\1" * 300)
    for number in range(MAX_NAMES + 500):
        (folder / f"x{number}.safetensors").hardlink_to(folder / "x.safetensors")
    (only,) = participate(plan("a", rounds=1), Folder(tmp_path, 1), deadline=1.0)
    assert only.reached == 1
    assert len(only.dropped) == MAX_NAMES  # and one entry for all others, in place of the own name
    assert only.dropped[0] == {
        "client": "502 more names",
        "why": f"a round takes messages of {MAX_NAMES} names at most",
    }


def test_what_was_read_counts_where_the_deadline_cuts_the_list_of_names_short(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    box = Folder(tmp_path, 3)
    for name in ("a", "b"):
        box.put(1, name, {"x": torch.zeros(1)})
    assert set(box.get_all(1, deadline=0.1)) == {"a", "b"}
    monkeypatch.setattr(box._reader, "list_round", lambda round, until: {})
    assert set(box.get_all(1, deadline=0.1)) == {"a", "b"}


def test_changed_bytes_are_never_more_than_unusable() -> None:
    """An honest message with a few bytes changed, cut or doubled, 400 times."""
    made = plan("a")
    state = made.algorithm.server.initial_state(None, made.federation())
    form = _form(made, state, _assignment(made, 1, "a", Store()), Templates())
    assert not isinstance(form.read(HONEST), Unusable)
    draw = random.Random(1)
    outcomes = {isinstance(form.read(mutated(HONEST, draw)), Unusable) for _ in range(400)}
    assert True in outcomes


def mutated(data: bytes, draw: random.Random) -> bytes:
    changed = bytearray(data)
    for _ in range(draw.choice((1, 1, 2, 8, 64))):
        place = draw.randrange(draw.choice((8, 160, len(changed))))  # the length of the header, the header, anywhere
        changed[place] = draw.choice((0, 0x22, 0x7B, 0xFF, draw.randrange(256)))
    cut = draw.random()
    return bytes(changed if cut < 0.8 else changed[: draw.randrange(len(changed))] if cut < 0.9 else changed * 2)


def test_a_stranger_in_the_store_ends_nobody(port: int) -> None:
    """Round numbers that are none, names that are no text, a name without a message, and a message of 8 MB."""
    box = Network("127.0.0.1", port, 1, timeout=5.0)
    for name, data in [*((n, pack(t)) for n, t in TREES.items()), *BYTES.items(), ("long", bytes(MAX_MESSAGE_BYTES))]:
        box._store.set(f"1/{spell(name)}", data)
        box._store.append("1", f"{spell(name)}\n")
    box._store.append("1", "ghost\n" + "x" * 100_000 + "\n%zz\n\x1b[2J\nSt. Mary's\n")
    for newest in ("abc", "-1", "9" * 5000, "²", "999999999", ""):
        box._store.set("newest", newest)
        assert box.newest() == 0
    (only,) = participate(plan("a", rounds=1), box, deadline=2.0)
    assert only.reached == 1
    why = {entry["client"]: entry["why"] for entry in only.dropped}
    assert len(why) == len(TREES) + len(BYTES) + 6
    assert why["ghost"] == "has a name in the mailbox, and no message"
    assert why["long"].startswith(f"has {MAX_MESSAGE_BYTES} bytes")


def test_a_message_too_long_for_the_store_is_a_sentence(port: int) -> None:
    box = Network("127.0.0.1", port, 1)
    with pytest.raises(Mistake, match=r"a message has \d+ bytes, and a mailbox on the network takes 8388608 at most"):
        box.put(1, "a", {"x": torch.zeros(2**21)})
    box.put(1, "a", {"x": torch.zeros(2**21 - 100)})
    assert box.senders(1) == {"a"}


def listening_addresses(port: int) -> set[str]:
    """The IPv4 addresses at which something listens on a port, as Linux says."""
    lines = [line.split() for kind in ("tcp", "tcp6") for line in Path(f"/proc/net/{kind}").read_text().splitlines()]
    here = [line[1].split(":") for line in lines if line[3] == "0A"]
    return {address for address, number in here if number == f"{port:04X}"}


@pytest.mark.skipif(not Path("/proc/net/tcp6").exists(), reason="only Linux says so")
def test_a_store_listens_on_this_machine_alone_unless_told_otherwise(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    hosts: list[tuple[str, set[str]]] = []

    def note(host: str, port: int) -> Any:
        store = serve(host, port)
        hosts.append((host, listening_addresses(store.port)))
        return store

    serve = network_mailbox.serve
    monkeypatch.setattr(network_mailbox, "serve", note)
    monkeypatch.setattr(time, "sleep", lambda seconds: (_ for _ in ()).throw(KeyboardInterrupt))
    network_mailbox.main(["0"])
    network_mailbox.main(["0", "--host", "0.0.0.0"])
    assert hosts == [("127.0.0.1", {"0100007F"}), ("0.0.0.0", {"00000000"})]
    assert "a mailbox listens at 127.0.0.1, port" in capsys.readouterr().out


@pytest.mark.parametrize("name", ["", "x" * 300, "\udcff"])
def test_a_name_that_cannot_be_spelled_is_a_mistake(name: str, tmp_path: Path) -> None:
    with pytest.raises(Mistake, match="a participant cannot be called"):
        Folder(tmp_path, 1).put(1, name, {"x": torch.zeros(1)})


def test_a_name_prints_on_one_line() -> None:
    assert printable("a\nround 9: heard all\x1b[2J") == "a\\nround 9: heard all\\x1b[2J"


def test_too_few_messages_for_the_aggregator_change_nothing(tmp_path: Path) -> None:
    """A mean without the largest and the smallest needs three updates. Alone, a participant keeps its model and state,
    and says why."""
    rule = aggregation("trimmed_mean", num_byzantine=1)
    made = plan("a", coterie.fedmd(lr=0.1), rounds=2, aggregation=rule)
    initial = {name: leaf.double() for name, leaf in model("a").state_dict().items()}
    for last in participate(made, Folder(tmp_path, 1), deadline=0.1):
        assert last.reached == 0
        assert last.dropped[0]["client"] == "a"
        assert last.dropped[0]["why"].startswith("only 1 updates arrived: aggregation.")
        assert not last.state["consensus"].numel()
        assert distance(last.weights(), initial) == 0


def test_a_participant_that_diverges_keeps_its_last_finite_model(tmp_path: Path) -> None:
    made = plan("a", coterie.fedh2l(lr=1e200, batch_size=4), rounds=2)
    for last in participate(made, Folder(tmp_path, 1), deadline=0.1):
        assert last.reached == 0
        assert last.dropped[0]["client"] == "a"
        assert "not finite" in last.dropped[0]["why"]
        assert all(leaf.isfinite().all() for leaf in last.weights().values())
