"""A liar who can write into the mailbox, in the roster or not: what it leaves there costs nobody a model."""

from __future__ import annotations

import json
import os
import random
import socket
import struct
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

import coterie
from coterie import Mistake, Plan, Round
from coterie.aggregation import aggregation
from coterie.core import tree
from coterie.core.packing import pack, unpack
from coterie.core.printable import printable
from coterie.loop.store import Store
from coterie.loop.template import Templates
from coterie.peers.agreed_rounds import take_part
from coterie.peers.letter import Letter
from coterie.peers.message import Form, Unusable, form_of_round
from coterie.peers.names import spell
from coterie.peers.own_plan import assignment_of
from tests.federations import distance
from tests.peers.boxes import FAST, Hospital, in_threads, together
from tests.peers.test_agreed_rounds import IDS, SEED, plan

FEDH2L = coterie.fedh2l(lr=0.1, batch_size=4, momentum=0.5)
EQUAL = {"examples": 1.0, "processed": 1.0, "one": 1.0}


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


def honest_form() -> Form:
    """What an honest update of the first round looks like."""
    made = plan(FEDH2L, seed_set=SEED)
    state = made.algorithm.server.initial_state(None, made.federation())
    broadcast = made.algorithm.server.broadcast(state)
    return form_of_round(made, Templates().of_round(made, broadcast)(assignment_of(made, 1, "a", Store())))


def test_what_no_honest_participant_sends_cannot_be_used() -> None:
    form = honest_form()
    assert not isinstance(form.read(HONEST), Unusable)
    found = {name: form.read(data) for name, data in ({n: pack(t) for n, t in TREES.items()} | BYTES).items()}
    assert [name for name, each in found.items() if not isinstance(each, Unusable)] == []
    why = {name: each.why for name, each in found.items() if isinstance(each, Unusable)}
    assert why["huge"] == "posteriors hold numbers outside 0 to 1, so they are no probabilities"
    assert why["rows of two"] == "posteriors have rows that do not sum to 1, so they are no probabilities"
    assert why["a structure with a number"].startswith("cannot be read (")
    assert all(each.isprintable() for each in why.values())


def test_changed_bytes_are_never_more_than_unusable() -> None:
    """An honest update with a few bytes changed, cut or doubled, 400 times."""
    form, draw = honest_form(), random.Random(1)
    outcomes = {isinstance(form.read(mutated(HONEST, draw)), Unusable) for _ in range(400)}
    assert True in outcomes


def mutated(data: bytes, draw: random.Random) -> bytes:
    changed = bytearray(data)
    for _ in range(draw.choice((1, 1, 2, 8, 64))):
        place = draw.randrange(draw.choice((8, 160, len(changed))))  # the length of the header, the header, anywhere
        changed[place] = draw.choice((0, 0x22, 0x7B, 0xFF, draw.randrange(256)))
    cut = draw.random()
    return bytes(changed if cut < 0.8 else changed[: draw.randrange(len(changed))] if cut < 0.9 else changed * 2)


LIES = ("nan", "rows of two", "a name that clears the screen", "a megabyte more", "a pickle")


def run_with_a_liar(folder: Path, bodies: list[bytes]) -> dict[str, list[Round]]:
    """Two honest participants and one of the roster that signs whatever it is given, a body in each round."""
    hospital, rounds = Hospital(folder, IDS), len(bodies)
    boxes = {name: hospital.box(name) for name in IDS}

    def lie() -> None:
        boxes["c"].put(0, "here", {"examples": 8})
        for number, body in enumerate(bodies, 1):
            while (before := boxes["c"].decision(number - 1)) is None:
                boxes["c"].pause(0.01)
            boxes["c"].put(number, "update", {"weighting": EQUAL, "state": before.state}, body)

    made = {name: plan(FEDH2L, rounds=rounds, seed_set=SEED) for name in "ab"}
    honest: dict[str, Any] = {n: lambda n=n: list(take_part(made[n], boxes[n], FAST)) for n in "ab"}
    return in_threads(honest | {"c": lie})


def test_what_a_liar_signs_changes_nobody_s_model(tmp_path: Path) -> None:
    bodies = {name: pack(t) for name, t in TREES.items()} | BYTES
    quiet = run_with_a_liar(tmp_path / "quiet", [b""] * len(LIES))
    hostile = run_with_a_liar(tmp_path / "hostile", [bodies[name] for name in LIES])
    for name in "ab":
        for with_liar, without in zip(hostile[name], quiet[name], strict=True):
            assert with_liar.reached == without.reached == 2
            assert distance(with_liar.weights(name), without.weights(name)) == 0
            (entry,) = with_liar.dropped
            assert entry["client"] == "c"
            assert entry["why"].isprintable()
            json.dumps(with_liar.record())


def plants(target: Path) -> dict[str, Callable[[Path], object]]:
    """What may lie in the place of a letter."""
    target.write_bytes(HONEST)

    def make_socket(path: Path) -> None:
        here = Path.cwd()
        os.chdir(path.parent)  # the path of a socket must be short
        try:
            socket.socket(socket.AF_UNIX).bind(path.name)
        finally:
            os.chdir(here)

    def make_sparse(path: Path) -> None:
        with path.open("wb") as file:
            file.truncate(2**40)

    return {
        "pipe": os.mkfifo,
        "endless": lambda path: path.symlink_to("/dev/zero"),
        "linked": lambda path: path.symlink_to(target),
        "nowhere": lambda path: path.symlink_to(path.parent / "no such file"),
        "loop": lambda path: path.symlink_to(path.name),
        "kernel": lambda path: path.symlink_to("/proc/self/mem"),
        "folder": lambda path: (path / "more").mkdir(parents=True),
        "socket": make_socket,
        "sparse": make_sparse,
        "bytes": lambda path: path.write_bytes(HONEST),
    }


def test_whatever_a_stranger_plants_two_participants_learn_as_if_it_were_absent(tmp_path: Path) -> None:
    """In each round something else lies in the place of the decision, of one's own update and of another's word."""
    made, names = plants(tmp_path / "target"), ("a", "b")
    hospital, quiet = Hospital(tmp_path / "hostile", names), Hospital(tmp_path / "quiet", names)
    run = hospital.box("a").run[:16]
    (tmp_path / "hostile/box/start").mkdir(parents=True)
    os.mkfifo(tmp_path / "hostile/box/start/b.start")
    for number, plant in enumerate(made.values()):
        folder = tmp_path / "hostile/box" / run / str(number)
        folder.mkdir(parents=True)
        for name in ("decision.1", "a.update", "b.here"):
            plant(folder / name)
    plans = {n: plan_of_two(rounds=len(made) - 1) for n in names}
    hostile = together(hospital, plans)
    without = together(quiet, {n: plan_of_two(rounds=len(made) - 1) for n in names})
    for name in names:
        assert pack(hostile[name][-1].state) == pack(without[name][-1].state)
        assert [(each.reached, each.dropped) for each in hostile[name]] == [(2, [])] * (len(made) - 1)
    assert (tmp_path / "target").read_bytes() == HONEST


def plan_of_two(rounds: int) -> Plan:
    """The plan of a run with two participants."""
    return replace(plan(FEDH2L, rounds=rounds, seed_set=SEED), ids=("a", "b"))


def test_what_crosses_is_posteriors_and_nothing_else(tmp_path: Path) -> None:
    """An update is one table [S, C] whose rows add up to one, and its letter says what it counts and where it began."""
    hospital = Hospital(tmp_path, IDS)
    together(hospital, {name: plan(FEDH2L, rounds=2, seed_set=SEED) for name in IDS})
    box = hospital.box("a")
    for number in (1, 2):
        for name in IDS:
            letter = box.read(number, name, "update", 2**20)
            assert isinstance(letter, Letter)
            update = unpack(letter.body)
            assert {path: tuple(x.shape) for path, x in tree.flatten(update).items()} == {"posteriors": (len(SEED), 3)}
            assert torch.allclose(update["posteriors"].sum(-1), torch.ones(len(SEED), dtype=torch.float64))
            assert letter.facts.keys() == {"weighting", "state"}
            assert len(letter.body) < tree.nbytes(update) + 200


@pytest.mark.parametrize("name", ["", "x" * 300, "\udcff"])
def test_a_name_that_cannot_be_spelled_is_a_mistake(name: str) -> None:
    with pytest.raises(Mistake, match="a participant cannot be called"):
        spell(name)


def test_a_name_prints_on_one_line() -> None:
    assert printable("a\nround 9: heard all\x1b[2J") == "a\\nround 9: heard all\\x1b[2J"


def test_too_few_updates_for_the_aggregator_change_nothing(tmp_path: Path) -> None:
    """A mean without the largest and the smallest needs three updates, and "c" sends none that can be used."""
    hospital, rule = Hospital(tmp_path, IDS), aggregation("trimmed_mean", num_byzantine=1)
    boxes = {name: hospital.box(name) for name in IDS}
    for number in (1, 2):
        boxes["c"].put(number, "update", {"weighting": EQUAL, "why": "has no examples"})
    boxes["c"].put(0, "here", {"examples": 8})
    made = {name: plan(coterie.fedmd(lr=0.1), rounds=2, seed_set=SEED, aggregation=rule) for name in "ab"}
    (weights,) = made["a"].initial.values()
    initial = weights["params"] | weights["buffers"]
    work: dict[str, Any] = {n: lambda n=n: list(take_part(made[n], boxes[n], FAST)) for n in "ab"}
    for name, rounds in in_threads(work).items():
        for last in rounds:
            assert last.reached == 0
            assert any(each["why"].startswith("only 2 updates arrived: aggregation.") for each in last.dropped)
            assert distance(last.weights(name), initial) == 0


def test_a_participant_that_diverges_keeps_its_last_finite_model(tmp_path: Path) -> None:
    recipe = coterie.fedh2l(lr=1e200, batch_size=4)
    apart = together(Hospital(tmp_path, IDS), {name: plan(recipe, rounds=2, seed_set=SEED) for name in IDS})
    for name, rounds in apart.items():
        for last in rounds:
            assert last.reached == 0
            assert {each["client"] for each in last.dropped} == set(IDS)
            assert all("not finite" in each["why"] for each in last.dropped)
            assert all(leaf.isfinite().all() for leaf in last.weights(name).values())
