"""A stopped run goes on with the data that it began with, or not at all."""

import os
import shutil
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from coterie import Mistake
from coterie.data import load
from coterie.data.origins import Origins, collect_origins, digest_tensor, find_difference
from coterie.experiment.run import SilentRun, run
from coterie.experiment.settings import load_settings
from coterie.track.rounds_file import Record
from tests.experiment.files import written

CSV = """
rounds = 4
[data]
source = "csv"
path = "wards.csv"
label_column = "ill"
num_clients = 2
[model]
name = "logistic"
[algorithm]
name = "fedavg"
lr = 0.1
"""
OWN = CSV.replace('source = "csv"\npath = "wards.csv"\nlabel_column = "ill"', 'source = "wards:made"')
MODULE = """
import numpy as np, torch
from pathlib import Path
from coterie import Examples
from coterie.data import Source

def made():
    x = torch.from_numpy(np.load(Path(__file__).with_name("x.npy")))
    return Source("made", Examples(x, torch.arange(len(x)) % 2), None, 2)
"""


class Watch(SilentRun):
    """Ends a run as Ctrl-C does after its second round, once; keeps what was said."""

    def __init__(self, stop: bool = False) -> None:
        self.stop, self.said = stop, list[str]()

    def round(self, record: Record) -> None:
        if self.stop and record["round"] == 2:
            raise KeyboardInterrupt

    def say(self, sentence: str) -> None:
        self.said.append(sentence)


def stopped(home: Path, text: str) -> Path:
    """The folder of a run that was stopped after two rounds."""
    with pytest.raises(KeyboardInterrupt):
        run(load_settings(written(home, text)), home / "run", watch=Watch(stop=True))
    return home / "run"


def resumed(folder: Path) -> list[str]:
    """Ends the run, and returns what it said."""
    watch = Watch()
    assert run(load_settings(folder.with_name("digits.toml")), folder, resume=True, watch=watch).ran
    return watch.said


def contents(folder: Path) -> dict[str, bytes]:
    return {str(path): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


@pytest.fixture
def wards(tmp_path: Path) -> Path:
    lines = [f"{k % 7},{k % 5},{'yes' if k % 7 > 3 else 'no'}" for k in range(40)]
    (tmp_path / "wards.csv").write_text("\n".join(["age,dose,ill", *lines]) + "\n")
    return tmp_path


def test_a_csv_that_changed_is_named_and_nothing_is_lost(wards: Path) -> None:
    folder = stopped(wards, CSV)
    before, table = contents(folder), wards / "wards.csv"
    whole, times = table.read_text(), table.stat()
    table.write_text(whole.replace("3,4,no", "3,1,no"))
    os.utime(table, ns=(times.st_atime_ns, times.st_mtime_ns))  # neither its size nor its time tells
    with pytest.raises(Mistake, match=r"data changed since the run in .*run began: wards.csv has changed \(309 bytes"):
        resumed(folder)
    assert contents(folder) == before
    table.write_text(whole)
    inputs = (folder / "inputs.json").stat().st_mtime_ns
    assert not resumed(folder)
    assert (folder / "inputs.json").stat().st_mtime_ns == inputs
    table.unlink()
    assert not run(load_settings(wards / "digits.toml"), folder, resume=True).ran  # finished: no data are needed


def test_a_function_of_the_users_own_that_gives_other_data_is_refused(tmp_path: Path) -> None:
    (tmp_path / "wards.py").write_text(MODULE)
    rows = np.random.default_rng(0).normal(size=(20, 3)).astype(np.float32)
    np.save(tmp_path / "x.npy", rows)
    folder = stopped(tmp_path, OWN)
    np.save(tmp_path / "x.npy", rows + 1)
    with pytest.raises(Mistake, match=r"the source wards:made gives other data \(train inputs\)"):
        resumed(folder)
    np.save(tmp_path / "x.npy", rows)
    (tmp_path / "wards.py").write_text(MODULE + "\n# changed\n")
    assert resumed(folder) == ["the module wards has changed since this run began: later rounds use the new code"]


def test_a_folder_without_digests_is_used_with_a_note(wards: Path) -> None:
    """Earlier versions wrote neither data.json nor checksums, and no copies into the checkpoint."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("coterie.track.run_folder.RunFolder.copies", lambda self: {})
        folder = stopped(wards, CSV)
    for name in ("data.json", "checksums.json"):
        (folder / name).unlink()
    assert "has no data.json, so it is not checked" in resumed(folder)[0]


def test_a_seed_set_that_changed_is_named_too(wards: Path) -> None:
    shutil.copy(wards / "wards.csv", wards / "seeds.csv")
    seeds = '[seed_set]\nsource = "csv"\npath = "seeds.csv"\nlabel_column = "ill"\n'
    folder = stopped(wards, CSV.replace('"fedavg"', '"feddf"') + seeds)
    with (wards / "seeds.csv").open("a") as file:
        file.write("1,1,no\n")
    with pytest.raises(Mistake, match=r"seeds\.csv has changed"):
        resumed(folder)


def test_pictures_that_came_went_or_changed_are_named(tmp_path: Path) -> None:
    def record() -> dict[str, object]:
        with collect_origins() as origins:
            load("images", path=tmp_path)
        return origins.record()

    for k in range(12):
        (tmp_path / "ab"[k % 2]).mkdir(exist_ok=True)
        Image.new("L", (4, 4), k).save(tmp_path / "ab"[k % 2] / f"{k}.png")
    before = record()
    assert find_difference(record(), before) is None
    Image.new("L", (4, 4), 99).save(tmp_path / "a" / "0.png")
    assert str(find_difference(record(), before)).startswith("a/0.png has changed")
    (tmp_path / "a" / "0.png").rename(tmp_path / "a" / "-.png")
    assert find_difference(record(), before) == "the file a/-.png was not there"
    (tmp_path / "a" / "-.png").unlink()
    assert find_difference(record(), before) == "the file a/0.png is not read any more"


def test_of_very_many_files_each_folder_has_a_digest(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("coterie.data.origins.MAX_LISTED_FILES", 3)
    for name in ("a/1", "a/2", "b/1", "b/2"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_text(name)
    before = Origins([path for path in tmp_path.rglob("*") if path.is_file()]).record()
    assert list(before["files"]) == ["a/", "b/"]
    (tmp_path / "b" / "1").write_text("other")
    after = Origins([path for path in tmp_path.rglob("*") if path.is_file()]).record()
    assert str(find_difference(after, before)).startswith("b/ has changed")


def test_the_digest_of_a_tensor_is_that_of_its_values() -> None:
    x = torch.arange(6.0)
    assert digest_tensor(x) == digest_tensor(torch.arange(12.0)[:6].clone()) == digest_tensor(x.repeat(2, 1)[1])
    kinds = [x, x.reshape(2, 3), x.to(torch.bfloat16), x.int(), x + 0j, x > 2, x[0], x[:0], x.flip(0)]
    assert len({digest_tensor(kind) for kind in kinds}) == len(kinds)
