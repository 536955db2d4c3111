"""What a run folder promises, even where the process that writes it is killed."""

import json
from collections import UserDict
from pathlib import Path

import pytest
import safetensors.torch
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import nn

from coterie import Examples, Mistake
from coterie.models.functional import initial_weights
from coterie.track import RunFolder
from coterie.track.clients_json import MAX_LAZY_CLIENTS, describe_clients
from coterie.track.file_writing import client_file_name, client_file_names, client_id, to_json, write_file
from coterie.track.rounds_file import RoundsFile, read_records
from coterie.track.weights_file import pack_weights


def test_rounds_are_cut_back_byte_for_byte(tmp_path: Path) -> None:
    file = RoundsFile(tmp_path / "rounds.jsonl")
    for k in (1, 2, 3):
        file.append({"round": k, "loss": 0.1 * k})
    file.close()
    lines = file.path.read_bytes().splitlines(keepends=True)
    with file.path.open("ab") as torn:
        torn.write(b'{"round": 4, "lo')  # what a process that was killed may leave
    assert [r["round"] for r in read_records(file.path)] == [1, 2, 3]
    assert file.cut(2) == [{"round": 1, "loss": 0.1}, {"round": 2, "loss": 0.2}]
    assert file.path.read_bytes() == b"".join(lines[:2])
    file.append({"round": 3, "loss": 0.1 * 3})
    file.close()
    assert file.path.read_bytes() == b"".join(lines)


def test_missing_rounds_are_noticed(tmp_path: Path) -> None:
    file = RoundsFile(tmp_path / "rounds.jsonl")
    file.append({"round": 1})
    with pytest.raises(Mistake, match="holds only 1 whole rounds, and the checkpoint counts 2"):
        file.cut(2)


def test_infinite_numbers_become_null() -> None:
    text = to_json({"a": float("nan"), "b": [float("-inf"), 1.5], "c": {"d": float("inf")}, "e": "ü"})
    assert json.loads(text, parse_constant=pytest.fail) == {"a": None, "b": [None, 1.5], "c": {"d": None}, "e": "ü"}


def test_long_client_ids_have_files_of_their_own(tmp_path: Path) -> None:
    """Fifty letters of six bytes each would be three hundred bytes."""
    ids = ["Ж" * 50 + end for end in ("1", "2")]
    for client in ids:
        write_file(tmp_path / f"{client_file_name(client)}.safetensors", client.encode())
    assert len(list(tmp_path.iterdir())) == 2
    assert client_file_name("Ж" * 33) == "%D0%96" * 33  # it fits, so nothing is cut


@given(st.text(st.characters(exclude_categories=["Cs"]), max_size=16))
def test_a_client_id_becomes_a_file_name_and_comes_back(client: str) -> None:
    name = client_file_name(client)
    assert client_id(name) == client
    assert not set("/\\\0: ") & set(name)
    assert not name.startswith(".")


def test_clients_whose_ids_differ_only_in_case_have_files_that_differ_on_every_disk() -> None:
    ids = ["a", "A", "aB", "Ab", "Bonn", "J", "j", "Ж", "ж", "%4A", "ß", "SS", "ss", "L" * 201, "l" * 201]
    names = client_file_names(ids)
    assert len({name.lower() for name in names.values()}) == len(ids)
    assert names["a"] == "a"
    assert names["Bonn"] == "Bonn"
    assert [client_id(name) for name in names.values()][:-2] == ids[:-2]
    assert max(map(len, names.values())) <= 200


def test_two_runs_cannot_hold_one_folder(tmp_path: Path) -> None:
    folder = RunFolder(tmp_path / "run")
    with folder.hold(), pytest.raises(Mistake, match="another run is writing there now"), RunFolder(folder.path).hold():
        pass
    with RunFolder(folder.path).hold():  # it is free again afterwards
        pass


def test_files_that_a_killed_process_left_half_written_are_removed(tmp_path: Path) -> None:
    folder = RunFolder(tmp_path)
    half = [tmp_path / ".model.safetensors.4711.tmp", tmp_path / "clients" / ".a b.safetensors.7.tmp"]
    others = [tmp_path / ".notes.tmp", tmp_path / "clients" / "a b.safetensors"]
    (tmp_path / "clients").mkdir()
    for path in (*half, *others):
        path.touch()
    with folder.hold():
        assert not any(path.exists() for path in half)
    assert all(path.exists() for path in others)


def test_a_folder_that_holds_something_else_is_refused(tmp_path: Path) -> None:
    (tmp_path / "thesis.tex").touch()
    with pytest.raises(Mistake, match=r"neither empty nor a run folder \(it holds thesis\.tex\)"):
        _ = RunFolder(tmp_path).has_run
    with pytest.raises(Mistake, match="cannot be used as a run folder"):
        _ = RunFolder(tmp_path / "thesis.tex").has_run
    assert not RunFolder(tmp_path / "new").has_run


def test_a_folder_that_cannot_be_made_is_a_mistake(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with (
        pytest.raises(Mistake, match=r"cannot be written .* choose another folder with --out"),
        RunFolder(tmp_path / "file" / "run").hold(),
    ):
        pass


def test_a_full_disk_leaves_the_old_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "summary.json"
    write_file(path, b"old")

    def full(handle: int) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("os.fsync", full)
    with pytest.raises(Mistake, match=r"summary\.json: cannot be written \(No space left on device\)"):
        write_file(path, b"new")
    assert path.read_bytes() == b"old"
    assert [p.name for p in tmp_path.iterdir()] == ["summary.json"]


class Tied(nn.Module):
    """Two names for one parameter, an integer buffer, and a buffer that a state_dict leaves out."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.norm, self.last = nn.Linear(3, 3), nn.BatchNorm1d(3), nn.Linear(3, 3)
        self.last.weight = self.first.weight
        self.register_buffer("constant", torch.ones(2), persistent=False)


def test_a_weights_file_has_exactly_the_names_of_the_state_dict(tmp_path: Path) -> None:
    model = Tied()
    weights = initial_weights(model)
    flat = {**weights["params"], **weights["buffers"]}
    assert "last.weight" not in flat  # tied: listed once
    flat["first.weight"] = torch.full((3, 3), 7.0)
    write_file(tmp_path / "model.safetensors", pack_weights(model, flat))
    loaded = safetensors.torch.load_file(tmp_path / "model.safetensors")
    assert loaded.keys() == model.state_dict().keys()
    assert loaded["norm.num_batches_tracked"].dtype == torch.int64
    Tied().load_state_dict(loaded, strict=True)
    assert torch.equal(loaded["last.weight"], torch.full((3, 3), 7.0))


def test_the_same_weights_give_the_same_bytes() -> None:
    model = Tied()
    flat = {**initial_weights(model)["params"], **initial_weights(model)["buffers"]}
    backwards = dict(reversed(flat.items()))
    assert pack_weights(model, flat) == pack_weights(model, backwards)


def test_clients_are_described_without_their_examples() -> None:
    pool = Examples(torch.zeros(4, 2), torch.tensor([0, 1, 1, 5]))
    clients = {"a": pool.take(torch.tensor([1, 2, 3])), "b": Examples(torch.zeros(2, 2), torch.zeros(2, 3).long())}
    assert describe_clients(clients) == [
        {"id": "a", "examples": 3, "label_counts": {"1": 2, "5": 1}},
        {"id": "b", "examples": 2, "label_counts": None},
    ]


def test_a_large_population_is_not_made_to_be_described() -> None:
    class Lazy(UserDict[str, Examples]):
        def __getitem__(self, key: str) -> Examples:
            pytest.fail("looked up")

    many = Lazy({str(k): Examples(torch.zeros(1)) for k in range(MAX_LAZY_CLIENTS + 1)})
    assert describe_clients(many)[-1] == {"id": str(MAX_LAZY_CLIENTS), "examples": None, "label_counts": None}
