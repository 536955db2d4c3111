"""Participants whose files hold their own rows alone agree on what a simulation with everybody's rows has."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from coterie import Mistake, Round
from coterie.core.packing import pack
from coterie.experiment import peer_run
from coterie.experiment.build_experiment import Experiment, build_experiment
from coterie.experiment.peer_run import Peer
from coterie.experiment.resolve_engine import this_machine
from coterie.experiment.settings import load_settings
from coterie.loop.federate import federate
from coterie.loop.plan import Resume
from coterie.peers.roster import roster_line
from coterie.track import RunFolder
from tests.experiment.files import written
from tests.federations import distance
from tests.peers.boxes import FAST, Box, Hospital, in_threads

NAMES = ("east", "north", "west")
HEADER = "place,age,kind,answer,test"
ROWS = {
    "east": ["50,x,no,0", "60,y,no,0", ",x,yes,0", "55,y,no,1", "51,x,yes,1"],
    "north": ["40,z,yes,0", "41,z,no,0", "42,x,yes,0", "43,w,maybe,1"],  # a category and a class that nobody else has
    "west": ["70,x,no,0", "81,y,yes,0", "75,x,no,1"],
}
EXPERIMENT = """
rounds = 3
[data]
source = "csv"
path = "all.csv"
label_column = "answer"
client_column = "place"
test_column = "test"
{data}
[model]
{model}
[algorithm]
lr = 0.1
{algorithm}
[engine]
name = "sequential"
threads = 1
"""


def experiment_file(folder: Path, data: str = "", model: str = 'name = "logistic"', algorithm: str = "") -> Path:
    rows = [f"{name},{row}" for name in NAMES for row in ROWS[name]]
    (folder / "all.csv").write_text("\n".join([HEADER, *rows]))
    algorithm = algorithm or 'name = "scaffold"'
    return written(folder, EXPERIMENT.format(data=data, model=model, algorithm=algorithm), "hospitals.toml")


def own_file(folder: Path, name: str, rows: list[str] | None = None) -> str:
    """A file of one participant's rows, which does not say whose they are."""
    path = folder / f"{name}.csv"
    path.write_text("\n".join([HEADER.removeprefix("place,"), *(rows or ROWS[name])]))
    return f"data.path={path}"


class Group:
    """Participants in threads, each of which reads its own file."""

    def __init__(self, folder: Path, file: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(peer_run, "SignedMailbox", Box)
        self.folder, self.file, self.hospital = folder, file, Hospital(folder, NAMES)
        self.roster = folder / "roster.toml"
        self.roster.write_text("".join(roster_line(name, key) for name, key in self.hospital.roster.keys.items()))
        self.words: list[str] = []

    def start(self, name: str, *overrides: str, pace: Any = FAST) -> tuple[Peer, Experiment]:
        own = any(each.startswith("data.path=") for each in overrides)
        key = self.folder / "keys" / f"{name}.key"
        peer = Peer(name, self.hospital.url, self.roster, key, pace, own, self.words.append)
        settings = peer.adapt(load_settings(self.file, overrides))
        return peer, peer.build(settings, this_machine(), RunFolder(self.folder / name))

    def rounds(self, name: str, *overrides: str, resume: Resume | None = None) -> list[Round]:
        peer, _ = self.start(name, *overrides)
        (self.folder / name).mkdir(exist_ok=True)
        return list(peer.rounds(RunFolder(self.folder / name), resume, self.words.append))

    def together(self, own: Callable[[str], list[str]]) -> dict[str, list[Round]]:
        return in_threads({name: lambda n=name: self.rounds(n, *own(n)) for name in NAMES})


def simulate(file: Path) -> list[Round]:
    return list(federate(build_experiment(load_settings(file), this_machine()).plan))


@pytest.mark.parametrize("standardize", ["", 'standardize = "local"', 'standardize = "none"'])
def test_own_rows_give_the_model_of_a_simulation_with_all_rows(
    standardize: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Each participant has a part of the file alone: classes, categories, gaps and scale are those of all parts."""
    file = experiment_file(tmp_path, standardize)
    simulated = simulate(file)
    apart = Group(tmp_path, file, monkeypatch).together(lambda name: [own_file(tmp_path, name)])
    for rounds in apart.values():
        assert [pack(each.state) for each in rounds] == [pack(each.state) for each in simulated]
        assert [list(each.cohort) for each in rounds] == [list(each.cohort) for each in simulated]
    own = [rounds[-1].test_accuracy for rounds in apart.values()]
    sizes = [2, 1, 1]  # a simulation tests on the rows of all: the mean over rows is that over participants
    assert sum(a * n for a, n in zip(own, sizes, strict=True)) / 4 == pytest.approx(simulated[-1].test_accuracy)


@pytest.mark.parametrize(
    ("label", "task"),
    [('"dose"', '[task]\nkind = "regression"'), ('["sick", "tired"]', '[task]\nkind = "multilabel"')],
    ids=["number", "several"],
)
def test_labels_may_be_numbers_or_several(
    label: str, task: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    rows = {"east": ["50,1.5,0,1,0", "60,2,1,1,0", "61,2,1,0,1"], "north": ["40,7,0,0,0", "42,3,1,0,1"]}
    rows["west"] = ["45,7.25,0,1,0", "48,1,0,0,1"]
    file = experiment_file(tmp_path)
    key = "label_column" if label.startswith('"') else "label_columns"
    text = (
        file.read_text().replace('label_column = "answer"', f"{key} = {label}").replace("[model]", f"{task}\n[model]")
    )
    features = 'feature_columns = ["age"]'
    file.write_text(text.replace('client_column = "place"', f'client_column = "place"\n{features}'))
    header = "place,age,dose,sick,tired,test"
    (tmp_path / "all.csv").write_text("\n".join([header, *(f"{name},{row}" for name in NAMES for row in rows[name])]))
    for name in NAMES:
        (tmp_path / f"{name}.csv").write_text("\n".join([header.removeprefix("place,"), *rows[name]]))
    simulated = simulate(file)
    apart = Group(tmp_path, file, monkeypatch).together(lambda name: [f"data.path={tmp_path / name}.csv"])
    for rounds in apart.values():
        assert pack(rounds[-1].state) == pack(simulated[-1].state)


def test_a_file_of_all_has_each_participant_s_rows(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Rows carry their client's name; one reads a file of all, another one of its own: both are the same."""
    file = experiment_file(tmp_path)
    group = Group(tmp_path, file, monkeypatch)
    apart = group.together(lambda name: [] if name == "east" else [own_file(tmp_path, name)])
    assert {pack(rounds[-1].state) for rounds in apart.values()} == {pack(simulate(file)[-1].state)}
    assert any("has no column place, so all of its rows are those of west" in each for each in group.words)


@pytest.mark.parametrize("name", ["fedh2l", "fedmd"])
def test_each_its_own_model(name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Three models, and a seed set that all hold; each ends with the model that it has in a simulation."""
    file = experiment_file(
        tmp_path,
        model='clients = { east = "mlp", north = "logistic", west = "2nn" }',
        algorithm=f'name = "{name}"\n[seed_set]\nsource = "csv"\npath = "seed.csv"\nlabel_column = "answer"\n'
        'test_column = "test"',
    )
    seed = ["44,x,no,0", "50,y,yes,0", "61,z,maybe,0", ",x,no,0", "45,y,no,0", "50,z,yes,1"]
    (tmp_path / "seed.csv").write_text("\n".join([HEADER.removeprefix("place,"), *seed]))
    simulated = simulate(file)[-1]
    apart = Group(tmp_path, file, monkeypatch).together(lambda each: [own_file(tmp_path, each)])
    for me, rounds in apart.items():
        assert distance(rounds[-1].weights(me), simulated.weights(me)) == 0
        assert pack(rounds[-1].state) == pack(simulated.state)


def test_one_that_starts_again_finds_what_was_agreed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    file = experiment_file(tmp_path)
    group = Group(tmp_path, file, monkeypatch)
    first = group.together(lambda name: [own_file(tmp_path, name)])
    east = first["east"][0]
    again = group.rounds("east", own_file(tmp_path, "east"), resume=Resume(1, east.state, east.store))
    assert pack(again[-1].state) == pack(first["east"][-1].state)
    changed = own_file(tmp_path, "east", [*ROWS["east"], "33,x,no,0"])
    with pytest.raises(Mistake, match="the data of east are not those with which it came into this mailbox"):
        group.rounds("east", changed)


@pytest.mark.parametrize(
    ("change", "sentence"),
    [
        (["50,2,no,0", "60,3,yes,1"], "column kind holds numbers, that of .* texts"),
        (["50,x,0,0", "60,y,1,1"], 'kind of labels is "whole numbers"'),
    ],
)
def test_data_that_do_not_fit_are_named(
    change: list[str], sentence: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    file = experiment_file(tmp_path)
    group = Group(tmp_path, file, monkeypatch)
    with pytest.raises(Mistake, match=f"west: its {sentence}"):
        group.together(lambda name: [own_file(tmp_path, name, change if name == "west" else None)])


def test_all_must_come(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    group = Group(tmp_path, experiment_file(tmp_path), monkeypatch)
    pace = peer_run.Pace(start_deadline=0.2)
    with pytest.raises(Mistake, match=r"north, west did not come within 0\.2 seconds, and a run begins with all"):
        in_threads({"east": lambda: group.start("east", own_file(tmp_path, "east"), pace=pace)})


def test_rows_of_others_are_not_taken(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    group = Group(tmp_path, experiment_file(tmp_path), monkeypatch)
    (tmp_path / "other.csv").write_text("\n".join([HEADER, "north,1,x,no,0", "west,2,y,yes,0", "west,3,x,no,1"]))
    with pytest.raises(Mistake, match='there is no client "east"; there are north, west'):
        group.start("east", f"data.path={tmp_path / 'other.csv'}")


def test_rows_that_would_leave_are_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    file = experiment_file(tmp_path, algorithm='name = "fedh2l"\nseed_examples_per_client = 1')
    with pytest.raises(Mistake, match="rows of each participant would go to all others"):
        Group(tmp_path, file, monkeypatch).start("east", own_file(tmp_path, "east"))
