"""What is left in a mailbox counts if its sender has signed it for that place, and for nothing else."""

from __future__ import annotations

import json
import stat
import threading
from pathlib import Path
from typing import Any

import pytest
import torch

from coterie import Mistake
from coterie.peers.agreed_rounds import take_part
from coterie.peers.decision import Decision
from coterie.peers.first_sight import exchange_keys
from coterie.peers.letter import Letter, Place, read_letter, write_letter
from coterie.peers.message import Unusable
from coterie.peers.objects import FolderObjects, Objects, open_objects
from coterie.peers.pace import Pace
from coterie.peers.roster import Roster, read_roster, roster_line
from tests.common.recipes import RECIPES
from tests.peers.boxes import FAST, Hospital, in_threads, together
from tests.peers.test_agreed_rounds import IDS, plan

keys = pytest.importorskip("coterie.peers.keys")
PLACE = Place("r" * 64, 3, "update")


@pytest.fixture(params=["folder", "file", "memory"])
def objects(request: pytest.FixtureRequest, tmp_path: Path) -> Objects:
    if request.param == "memory":
        pytest.importorskip("fsspec")
    return open_objects(
        {"folder": str(tmp_path / "box"), "file": f"file://{tmp_path}/box", "memory": f"memory://{tmp_path}"}[
            request.param
        ]
    )


def test_a_place_keeps_what_it_is_given(objects: Objects) -> None:
    assert objects.read("1/a", 10) is None
    objects.put("1/a", b"first")
    objects.put("1/a", b"second")
    assert objects.read("1/a", 10) == b"second"
    assert objects.read("1/a", 3) == Unusable("has more than 3 bytes")
    objects.remove("1/a")
    objects.remove("1/a")
    assert objects.read("1/a", 10) is None


def test_of_many_that_create_one_name_one_succeeds(objects: Objects) -> None:
    for attempt in range(5):
        start, won = threading.Barrier(6), list[int]()

        def create(number: int, attempt: int = attempt, start: Any = start, won: list[int] = won) -> None:
            start.wait()
            if objects.create(f"3/decision.{attempt}", b"%d" % number):
                won.append(number)

        threads = [threading.Thread(target=create, args=(number,)) for number in range(6)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert len(won) == 1
        assert objects.read(f"3/decision.{attempt}", 10) == b"%d" % won[0]


def test_what_is_no_file_is_not_followed(tmp_path: Path) -> None:
    objects = FolderObjects(tmp_path / "box")
    (tmp_path / "secret").write_bytes(b"secret")
    (tmp_path / "box/1").mkdir()
    (tmp_path / "box/1/link").symlink_to(tmp_path / "secret")
    (tmp_path / "box/1/folder/x").mkdir(parents=True)
    for name in ("1/link", "1/folder"):
        assert isinstance(objects.read(name, 100), Unusable)
        assert not objects.create(name, b"mine")
    objects.put("1/link", b"mine")
    objects.put("1/folder", b"mine")
    assert (objects.read("1/link", 10), objects.read("1/folder", 10)) == (b"mine", b"mine")
    assert (tmp_path / "secret").read_bytes() == b"secret"


def test_a_place_in_which_two_can_make_one_name_is_refused() -> None:
    with pytest.raises(Mistake, match="participants cannot agree there"):
        open_objects("sftp://host/folder")


def test_a_letter_counts_where_it_was_written_for(tmp_path: Path) -> None:
    hospital = Hospital(tmp_path, ("a", "b"))
    data = write_letter(hospital.keys["a"], "a", PLACE, {"weighting": {"one": 1.0}}, b"body\nof bytes")
    good = read_letter(data, hospital.roster, PLACE, "a")
    assert isinstance(good, Letter)
    assert (good.sender, good.facts, good.body) == ("a", {"weighting": {"one": 1.0}}, b"body\nof bytes")
    stranger = keys.make_key(tmp_path / "stranger.key")
    forged = write_letter(stranger, "a", PLACE, {}, b"")
    outsider = write_letter(stranger, "z", PLACE, {}, b"")
    for given, place, sender, why in [
        (data, PLACE, "b", "is signed by a"),
        (data, Place("s" * 64, 3, "update"), "a", "was written for another run"),
        (data, Place(PLACE.run, 4, "update"), "a", "was written for round 3"),
        (data, Place(PLACE.run, 3, "here"), "a", "was written for another purpose"),
        (forged, PLACE, "a", "does not have the signature of a"),
        (outsider, PLACE, None, "is signed by somebody who is not in the roster"),
        (b"", PLACE, "a", "is not a signed letter"),
        (data.replace(b"\na\n", b"\nb\n", 1), PLACE, "b", "does not have the signature of b"),
    ]:
        assert read_letter(given, hospital.roster, place, sender) == Unusable(why)
    for place in range(len(data)):  # not one byte can be changed
        changed = bytearray(data)
        changed[place] ^= 1
        assert isinstance(read_letter(bytes(changed), hospital.roster, PLACE, "a"), Unusable)


def test_letters_that_do_not_count_are_named(tmp_path: Path) -> None:
    """In the name of "b" lies what "b" has signed for another round; in that of "c" what a stranger has. They are
    waited for, since their own letters may still come.
    """
    hospital = Hospital(tmp_path, IDS)
    boxes = {name: hospital.box(name) for name in IDS}
    for name in IDS:
        boxes[name].put(0, "here", {"examples": 8})
    facts = {"weighting": {"examples": 1.0, "processed": 1.0, "one": 1.0}}
    old = write_letter(hospital.keys["b"], "b", Place(boxes["b"].run, 7, "update"), facts, b"")
    forged = write_letter(keys.make_key(tmp_path / "x"), "c", Place(boxes["b"].run, 1, "update"), facts, b"")
    objects = open_objects(hospital.url)
    objects.put(f"{boxes['a'].run[:16]}/1/b.update", old)
    objects.put(f"{boxes['a'].run[:16]}/1/c.update", forged)
    alone = plan(RECIPES["fedavg"], rounds=1)
    pace = Pace(deadline=0.3, start_deadline=20.0, turn=0.05)
    (only,) = in_threads({"a": lambda: list(take_part(alone, boxes["a"], pace))})["a"]
    assert only.reached == 1
    assert only.dropped == [
        {"client": "b", "why": "was written for round 7"},
        {"client": "c", "why": "does not have the signature of c"},
    ]


@pytest.mark.parametrize("what", ["noise", "a stranger's decision", "nonsense that is signed"])
def test_what_is_no_decision_decides_nothing(what: str, tmp_path: Path) -> None:
    hospital = Hospital(tmp_path, IDS)
    box = hospital.box("a")
    place, facts = Place(box.run, 1, "decision"), Decision("0" * 64, {}, [], frozenset()).facts()
    data = {
        "noise": b"\x00" * 100,
        "a stranger's decision": write_letter(keys.make_key(tmp_path / "x"), "a", place, facts),
        "nonsense that is signed": write_letter(hospital.keys["b"], "b", place, {**facts, "letters": {"z": "0"}}),
    }[what]
    assert open_objects(hospital.url).create(f"{box.run[:16]}/1/decision.1", data)
    apart = together(hospital, {name: plan(RECIPES["fedavg"], rounds=2) for name in IDS})
    assert {round.reached for rounds in apart.values() for round in rounds} == {3}


def test_a_state_that_does_not_follow_is_noticed(tmp_path: Path) -> None:
    """ "b" decides honestly on who counts, and names a state that it has made up."""
    hospital = Hospital(tmp_path, IDS)
    liar = hospital.box("b")
    decide = liar.decide

    def lie(round: int, decision: Decision, state: bytes) -> None:
        from coterie.core import tree
        from coterie.core.digests import digest
        from coterie.core.packing import pack, unpack

        false = pack(tree.map(lambda x: x + 0.5 if x.is_floating_point() else x, unpack(state)))
        decide(
            round, Decision(digest(false), decision.letters, decision.dropped, decision.absent), false
        ) if round else (decide(round, decision, state))

    liar.decide = lie  # type: ignore[method-assign]
    plans = {name: plan(RECIPES["fedavg"], rounds=4) for name in IDS}
    boxes = {name: liar if name == "b" else hospital.box(name) for name in IDS}
    with pytest.raises(Mistake, match="the state that b has decided on does not follow from the round's updates"):
        in_threads({n: lambda n=n: list(take_part(plans[n], boxes[n], FAST)) for n in IDS})


def test_the_private_key_is_its_owner_s_alone(tmp_path: Path) -> None:
    path = tmp_path / "keys/north.key"
    made = keys.make_key(path)
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert keys.load_key(path).public_key == made.public_key
    with pytest.raises(Mistake, match="there is a key already"):
        keys.make_key(path)
    path.chmod(0o640)
    with pytest.raises(Mistake, match="others can read this private key"):
        keys.load_key(path)
    with pytest.raises(Mistake, match="make one with `coterie peer-key`"):
        keys.load_key(tmp_path / "absent")


def test_a_roster_is_read_as_it_is_written(tmp_path: Path) -> None:
    hospital = Hospital(tmp_path, ("north", "St. Mary's"))
    path = tmp_path / "roster.toml"
    path.write_text("".join(roster_line(name, key) for name, key in hospital.roster.keys.items()))
    assert read_roster(path) == hospital.roster
    path.write_text('north = "ed25519:AAAA"\n')
    with pytest.raises(Mistake, match="is not a public key"):
        read_roster(path)
    with pytest.raises(Mistake, match="have the same key"):
        Roster({"a": hospital.roster.keys["north"], "b": hospital.roster.keys["north"]})


def test_keys_at_first_sight(tmp_path: Path) -> None:
    hospital = Hospital(tmp_path, ("a", "b"))
    objects = open_objects(hospital.url)
    waits = threading.Thread(
        target=lambda: found.append(exchange_keys(objects, ["a", "b"], "a", hospital.keys["a"], 20, print))
    )
    found: list[Roster] = []
    waits.start()
    found.append(exchange_keys(objects, ["a", "b"], "b", hospital.keys["b"], 20, print))
    waits.join()
    assert found == [hospital.roster] * 2
    with pytest.raises(Mistake, match="another key lies there in the name of a"):
        exchange_keys(objects, ["a", "b"], "a", keys.make_key(tmp_path / "x"), 1, print)
    with pytest.raises(Mistake, match=r"c did not come within 0\.1 seconds"):
        exchange_keys(objects, ["a", "c"], "a", hospital.keys["a"], 0.1, print)


def test_another_experiment_is_named_where_one_waits(tmp_path: Path) -> None:
    hospital = Hospital(tmp_path, ("a", "b"))
    other = hospital.box("b", run={"experiment": "f" * 64})
    other.announce()
    assert hospital.box("a").differs("b") == "it runs another experiment"
    assert hospital.box("a").run != other.run


def test_what_lies_in_a_bucket_is_what_lies_in_a_folder(tmp_path: Path) -> None:
    pytest.importorskip("fsspec")
    hospital = Hospital(tmp_path, IDS, url=f"memory://{tmp_path}")
    apart = together(hospital, {name: plan(RECIPES["fedavg"], rounds=2) for name in IDS})
    alone = together(Hospital(tmp_path / "other", IDS), {name: plan(RECIPES["fedavg"], rounds=2) for name in IDS})
    for name in IDS:
        for key, weights in apart[name][-1].weights(name).items():
            assert torch.equal(weights, alone[name][-1].weights(name)[key])
    assert json.dumps(apart["a"][-1].dropped) == "[]"
