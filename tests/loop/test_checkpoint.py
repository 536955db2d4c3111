"""A checkpoint is whole or it is not there: bit for bit, after damage, and after a death at any instant."""

import contextlib
import io
import json
import os
import shutil
from collections.abc import Callable, Iterator
from itertools import count
from pathlib import Path
from types import SimpleNamespace
from typing import Any, ClassVar, cast

import pytest
import torch
from hypothesis import given, settings

import coterie
from coterie import Mistake, Round
from coterie.core.engine import Reply
from coterie.core.tree import Tree
from coterie.engines.sequential import Sequential
from coterie.loop.checkpoint import Checkpoints
from coterie.loop.plan import Resume
from coterie.loop.store import Store
from tests.core.test_tree import same, trees
from tests.federations import dense, distance, ragged

ODD = {
    "params": {"0.weight": torch.randn(2, 3), "a/b~c": torch.tensor(1.5), "ü": torch.zeros(0, 4)},
    "buffers": {},
    "count": torch.tensor(7),
    "flag": torch.tensor([True, False]),
    "half": torch.tensor([1.5], dtype=torch.float16),
    "server": {"deep": {"": {}}, "z": torch.ones(1), "a": torch.ones(1, dtype=torch.float64)},
}


def end_of(round: int, state: Tree, store: Store) -> Round:
    """As much of a round as a checkpoint looks at."""
    return cast(Round, SimpleNamespace(round=round, elapsed=round / 4, state=state, store=store))


def client_state(value: float) -> Tree:
    return {"algorithm": {"c": torch.full((3,), value)}, "up": {}}


def history(last: int) -> Iterator[Round]:
    """Rounds in which one of three clients changes: "a" in round 1, "b/..?" in 2, "ü" in 3, "a" in 4, ..."""
    clients, store = ("a", "b/../?", "ü"), Store()
    for number in range(1, last + 1):
        store = store.after(number, {clients[(number - 1) % 3]: client_state(number)})
        yield end_of(number, {"params": {"w": torch.full((4,), float(number))}, "buffers": {}}, store)


def saved(folder: Path, last: int, first: int = 1) -> Checkpoints:
    checkpoints = Checkpoints(folder)
    for round in history(last):
        if round.round >= first:
            checkpoints.save(round)
    return checkpoints


def is_that_of(found: Resume | None, round: int) -> bool:
    """Whether this is what `history` was after `round`, client by client."""
    expected = list(history(round))[-1]
    return (
        found is not None
        and (found.round, found.elapsed) == (round, round / 4)
        and same(found.state, expected.state)
        and found.store.versions() == expected.store.versions()
        and all(same(found.store.get(c) or {}, expected.store.get(c) or {}) for c in expected.store.versions())
    )


def names(folder: Path) -> list[str]:
    return sorted(path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file())


def half(path: Path) -> None:
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])


def flip(path: Path) -> None:
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 1
    path.write_bytes(bytes(data))


DAMAGE: dict[str, Callable[[Path], None]] = {
    "cut in half": half,
    "one bit flipped": flip,
    "empty": lambda path: path.write_bytes(b""),
    "missing": Path.unlink,
    "a folder": lambda path: (path.unlink(), path.mkdir())[0],
    "other JSON": lambda path: path.write_bytes(b"null"),
}


def test_nothing_saved_is_nothing_found(tmp_path: Path) -> None:
    checkpoints = Checkpoints(tmp_path / "not there yet")
    assert checkpoints.load() is None
    assert checkpoints.damaged == []
    assert not (tmp_path / "not there yet").exists()


def test_what_is_loaded_is_what_was_saved_bit_for_bit(tmp_path: Path) -> None:
    """Order of names, empty branches and leaves, whole numbers, odd names, odd client ids."""
    states = {"../up": ODD, "": {"algorithm": {}, "up": {"lost": torch.tensor(-0.0)}}, "a" * 300: client_state(1)}
    Checkpoints(tmp_path).save(end_of(3, ODD, Store().after(3, states)))
    found = Checkpoints(tmp_path).load()
    assert found is not None
    assert (found.round, found.elapsed) == (3, 0.75)
    assert same(found.state, ODD)
    for client, state in states.items():
        assert same(found.store.get(client) or {}, state)
    assert all(path.startswith(("manifest-3", "state-3", "clients/")) for path in names(tmp_path))


@given(trees)
@settings(max_examples=25)
def test_any_tree_comes_back(tmp_path_factory: pytest.TempPathFactory, state: Tree) -> None:
    folder = tmp_path_factory.mktemp("any")
    Checkpoints(folder).save(end_of(1, state, Store()))
    found = Checkpoints(folder).load()
    assert found is not None
    assert same(found.state, state)


def test_a_leaf_that_is_a_view_is_saved_alone(tmp_path: Path) -> None:
    """A thousand rows are not written for the sake of one, and what is transposed stays so."""
    pool = torch.randn(1000, 6)
    state = {"row": pool[3], "columns": pool[:2].T, "same": pool[3]}
    Checkpoints(tmp_path).save(end_of(1, state, Store()))
    found = Checkpoints(tmp_path).load()
    assert found is not None
    assert same(found.state, state)
    assert (tmp_path / "state-1.safetensors").stat().st_size < 2000


def test_the_last_two_are_kept_and_nothing_else(tmp_path: Path) -> None:
    """After rounds 1 to 7: states 6 and 7, and of the clients the versions that these two name: a-4 and a-7 ("a"
    changes in rounds 1, 4, 7), b-5, and ü-6."""
    saved(tmp_path, 7)
    found = names(tmp_path)
    assert [name for name in found if "/" not in name] == [
        "manifest-6.json",
        "manifest-7.json",
        "state-6.safetensors",
        "state-7.safetensors",
    ]
    assert sorted(int(name.split("-")[1].split(".")[0]) for name in found if "/" in name) == [4, 5, 6, 7]


def test_only_clients_that_changed_are_written(tmp_path: Path) -> None:
    rounds = list(history(5))
    checkpoints = Checkpoints(tmp_path)
    checkpoints.save(rounds[3])
    before = {path: path.stat().st_mtime_ns for path in tmp_path.rglob("clients/*")}
    checkpoints.save(rounds[4])
    written = [path for path in tmp_path.rglob("clients/*") if path.stat().st_mtime_ns != before.get(path)]
    assert len(before) == 3
    assert [path.stem.rsplit("-")[1] for path in written] == ["5"]


def test_rounds_between_checkpoints_are_not_lost(tmp_path: Path) -> None:
    """Saved after rounds 2 and 7 only: all that changed in 3 to 7 is in the second."""
    rounds = list(history(7))
    checkpoints = Checkpoints(tmp_path)
    checkpoints.save(rounds[1])
    checkpoints.save(rounds[6])
    assert is_that_of(Checkpoints(tmp_path).load(), 7)


@pytest.mark.parametrize("damage", DAMAGE)
@pytest.mark.parametrize("file", ["manifest-5.json", "state-5.safetensors", "clients/*-5.safetensors"])
def test_the_one_before_is_used_and_the_damage_named(tmp_path: Path, file: str, damage: str) -> None:
    saved(tmp_path, 5)
    (path,) = tmp_path.glob(file)
    DAMAGE[damage](path)
    checkpoints = Checkpoints(tmp_path)
    assert is_that_of(checkpoints.load(), 4)
    if (file, damage) != ("manifest-5.json", "missing"):  # then there is no checkpoint 5 to complain of
        assert len(checkpoints.damaged) == 1
        assert checkpoints.damaged[0].startswith(f"{tmp_path / 'manifest-5.json'} is damaged (")


@pytest.mark.parametrize("file", ["manifest-5.json", "state-5.safetensors"])
def test_a_bit_flipped_anywhere_is_noticed(tmp_path: Path, file: str) -> None:
    saved(tmp_path, 5)
    path = tmp_path / file
    data = path.read_bytes()
    for place in range(0, len(data), max(len(data) // 40, 1)):
        path.write_bytes(data[:place] + bytes([data[place] ^ 1]) + data[place + 1 :])
        assert is_that_of(Checkpoints(tmp_path).load(), 4), place


@pytest.mark.parametrize("every", [1, 2, 3])
@pytest.mark.parametrize("damage", ["cut in half", "missing"])
@pytest.mark.parametrize("file", ["manifest-5.json", "state-5.safetensors", "clients/*-5.safetensors"])
def test_after_falling_back_the_folder_becomes_whole_again(tmp_path: Path, file: str, damage: str, every: int) -> None:
    """The run goes on from round 4 and is saved again, in the same rounds or others: both checkpoints are sound."""
    saved(tmp_path, 5)
    (path,) = tmp_path.glob(file)
    DAMAGE[damage](path)
    checkpoints = Checkpoints(tmp_path)
    assert is_that_of(checkpoints.load(), 4)
    for round in list(history(10))[4 + every - 1 :: every]:
        checkpoints.save(round)
        assert is_that_of(Checkpoints(tmp_path).load(), round.round)
        newest = tmp_path / f"manifest-{round.round}.json"
        (aside := tmp_path / "aside").write_bytes(newest.read_bytes())
        newest.unlink()
        second = Checkpoints(tmp_path)
        assert is_that_of(second.load(), 4 if round.round == 4 + every else round.round - every)
        assert second.damaged == []
        aside.replace(newest)
    assert len(list(tmp_path.glob("manifest-*"))) == len(list(tmp_path.glob("state-*"))) == 2


def test_all_damaged_is_a_mistake_that_says_so(tmp_path: Path) -> None:
    saved(tmp_path, 5)
    flip(tmp_path / "state-4.safetensors")
    half(tmp_path / "manifest-5.json")
    checkpoints = Checkpoints(tmp_path)
    with pytest.raises(Mistake) as caught:
        checkpoints.load()
    assert "manifest-5.json" in str(caught.value)
    assert "the checksum of state-4.safetensors does not match" in str(caught.value)
    assert len(checkpoints.damaged) == 2


def test_other_files_in_the_folder_are_left_alone(tmp_path: Path) -> None:
    strange = ["manifest-old.json", "manifest-.json", "notes.txt", "clients/list.csv"]
    (tmp_path / "clients").mkdir()
    for name in strange:
        (tmp_path / name).write_text("mine")
    saved(tmp_path, 3)
    assert is_that_of(Checkpoints(tmp_path).load(), 3)
    assert set(strange) <= set(names(tmp_path))


def test_a_checkpoint_in_a_new_folder_holds_every_client(tmp_path: Path) -> None:
    """A run resumed from one folder and saved to another: also the clients that it has not looked at since."""
    saved(tmp_path / "old", 5)
    found = Checkpoints(tmp_path / "old").load()
    assert found is not None
    store = found.store.after(6, {"ü": client_state(6)})
    Checkpoints(tmp_path / "new").save(end_of(6, {"params": {"w": torch.full((4,), 6.0)}, "buffers": {}}, store))
    assert is_that_of(Checkpoints(tmp_path / "new").load(), 6)


class Died(BaseException):
    """A process that is killed: nothing after it happens, whatever handlers there are."""


def fail_at(monkeypatch: pytest.MonkeyPatch, fatal: int, error: BaseException) -> list[None]:
    """Let the `fatal`-th change of the disk fail, and, if it is a death, all after it. Returns a list as long as the
    number of changes so far; a file is written in two halves."""
    changes: list[None] = []

    def change() -> None:
        changes.append(None)
        if len(changes) == fatal or (len(changes) > fatal and isinstance(error, Died)):
            raise error

    def watched(real: Callable[..., Any]) -> Callable[..., Any]:
        def call(*args: Any, **options: Any) -> Any:
            change()
            return real(*args, **options)

        return call

    class InHalves(io.FileIO):
        def write(self, data: Any) -> int:
            written = super().write(data[: len(data) // 2])
            change()
            return written + (super().write(data[len(data) // 2 :]) or 0)

    opened = Path.open
    monkeypatch.setattr(
        Path, "open", lambda path, mode="r": InHalves(path, "w") if mode == "wb" else opened(path, mode)
    )
    monkeypatch.setattr(Path, "replace", watched(Path.replace))
    monkeypatch.setattr(Path, "unlink", watched(Path.unlink))
    monkeypatch.setattr(os, "fsync", watched(os.fsync))
    return changes


@pytest.mark.parametrize("error", [Died(), OSError(28, "No space left on device")], ids=["killed", "disk full"])
def test_a_save_that_fails_anywhere_leaves_a_checkpoint_to_load(tmp_path: Path, error: BaseException) -> None:
    """The fifth save dies at its first call that changes the disk, at its second, and so on, a write half done.

    Whatever is left, the fourth or the fifth is there, entire; the run then goes on and ends with a clean folder.
    """
    saved(tmp_path / "four", 4)
    rounds = list(history(6))
    outcomes: list[int] = []
    for fatal in count(1):
        folder = tmp_path / str(fatal)
        shutil.copytree(tmp_path / "four", folder)
        checkpoints = Checkpoints(folder)
        checkpoints.load()
        with pytest.MonkeyPatch.context() as patch, contextlib.suppress(Died, OSError):
            changes = fail_at(patch, fatal, error)
            checkpoints.save(rounds[4])
        if len(changes) < fatal:
            break  # it had no such change: the save was complete
        outcomes.append(_recovers(folder, rounds))
    assert len(outcomes) >= 12  # write, fsync, rename and tidying of three files; then what is forgotten
    assert outcomes == sorted(outcomes)
    assert set(outcomes) == {4, 5}


def _recovers(folder: Path, rounds: list[Round]) -> int:
    """The round that is found; after it, the run goes on to round 6."""
    survivor = Checkpoints(folder)
    found = survivor.load()
    assert found is not None
    assert survivor.damaged == []
    assert is_that_of(found, found.round)
    for round in rounds[found.round :]:
        survivor.save(round)
    assert is_that_of(Checkpoints(folder).load(), 6)
    assert [name for name in names(folder) if "/" not in name] == [
        "manifest-5.json",
        "manifest-6.json",
        "state-5.safetensors",
        "state-6.safetensors",
    ]
    assert not list(folder.rglob("*.tmp"))
    return found.round


class Interrupted(Sequential):
    """Ctrl-C in the middle of a round, after so many replies in all."""

    left: ClassVar[int]

    def run(self, *args: Any) -> Iterator[Reply]:
        for reply in super().run(*args):
            type(self).left -= 1
            if type(self).left < 0:
                raise KeyboardInterrupt
            yield reply


def test_unfinished_files_of_killed_processes_are_removed(tmp_path: Path) -> None:
    saved(tmp_path, 3)
    left = [tmp_path / ".state-9.safetensors.123.tmp", tmp_path / "clients" / ".ab-9.safetensors.123.tmp"]
    for path in left:
        path.write_bytes(b"half")
    saved(tmp_path, 4)
    assert not any(path.exists() for path in left)


def test_a_round_that_is_interrupted_leaves_the_one_before_to_be_saved(tmp_path: Path) -> None:
    """Six clients of SCAFFOLD, who keep state, and an interruption among the replies of round 3. The checkpoint of
    round 2, written after it, holds no state of round 3, and the run that goes on from there ends as an unbroken one.
    """
    recipe, options = coterie.scaffold(lr=0.1, batch_size=5), {"rounds": 4, "rng_seed": 1}
    whole = list(coterie.federate(recipe, dense().float(), ragged(), **options))
    Interrupted.left, last = 15, None
    with contextlib.suppress(KeyboardInterrupt):
        for round in coterie.federate(recipe, dense().float(), ragged(), engine=Interrupted(), **options):
            last = round
    assert last is not None
    Checkpoints(tmp_path).save(last)
    resume = Checkpoints(tmp_path).load()
    assert resume is not None
    assert resume.round == 2
    assert set(resume.store.versions().values()) == {2}
    rest = list(coterie.federate(recipe, dense().float(), ragged(), resume=resume, **options))
    assert distance(whole[-1].weights(), rest[-1].weights()) == 0


def test_a_resume_can_be_used_twice(tmp_path: Path) -> None:
    recipe = coterie.scaffold(lr=0.1, batch_size=5)
    (first,) = coterie.federate(recipe, dense().float(), ragged(), rounds=1)
    Checkpoints(tmp_path).save(first)
    resume = Checkpoints(tmp_path).load()
    ends = [list(coterie.federate(recipe, dense().float(), ragged(), rounds=3, resume=resume))[-1] for _ in range(2)]
    assert distance(ends[0].weights(), ends[1].weights()) == 0


def test_the_manifest_is_readable_and_names_every_file(tmp_path: Path) -> None:
    saved(tmp_path, 5)
    manifest = json.loads((tmp_path / "manifest-5.json").read_text())
    assert (manifest["round"], manifest["elapsed"]) == (5, 1.25)
    assert set(manifest["clients"]) == {"a", "b/../?", "ü"}
    named = {manifest["state"]["file"], *(entry["file"] for entry in manifest["clients"].values())}
    assert all((tmp_path / name).is_file() for name in named)
