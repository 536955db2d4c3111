"""[track]: the stores of trackers hold the numbers of rounds.jsonl, each once, and no tracker changes a run."""

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, ClassVar

import pytest

from coterie.core.errors import Mistake
from coterie.experiment.run import SilentRun
from coterie.track.rounds_file import Record
from coterie.track.track_table import TRACKERS, Track
from coterie.track.trackers import TRACK_FILE, Trackers, numbers_of
from tests.experiment.conftest import Start


class Interrupt(SilentRun):
    """Interrupts a run while a round is shown, after its checkpoint and before trackers hear of it."""

    def __init__(self, after: int) -> None:
        self.after = after

    def round(self, record: Record) -> None:
        if record["round"] == self.after:
            raise KeyboardInterrupt


class Fake:
    """A tracker that keeps what it gets, and may fail at one of its verbs."""

    calls: ClassVar[list[tuple[str, Any]]] = []
    fails_at = ""

    def __init__(self, folder: Path, name: str, config: dict[str, Any]) -> None:
        self.name = name

    def _note(self, verb: str, what: Any) -> None:
        if verb == self.fails_at:
            raise ConnectionError("nobody is there")
        Fake.calls.append((verb, what))

    def open(self, id: str | None, round: int) -> str:
        self._note("open", (id, round))
        return id or "7"

    def log(self, records: Sequence[Record]) -> None:
        self._note("log", [record["round"] for record in records])

    def end(self, summary: Mapping[str, Any], files: Sequence[Path]) -> None:
        self._note("end", [file.name for file in files])

    def close(self) -> None:
        self._note("close", None)


class Broken(Fake):
    fails_at = "log"


@pytest.fixture
def fakes(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Fake, "calls", [])
    monkeypatch.setattr(TRACKERS, "places", {"mlflow": f"{__name__}:Fake", "wandb": f"{__name__}:Broken"})


@pytest.mark.usefixtures("fakes")
def test_a_tracker_gets_each_round_once_over_several_processes(tmp_path: Path) -> None:
    """The first process sends rounds 1 and 2; the next one, which goes on after round 3, sends the third too."""
    records = [{"round": number} for number in range(1, 6)]
    first = Trackers(Track(["mlflow"], model=True), tmp_path, {}, pytest.fail)
    first.log([])
    assert not list(tmp_path.iterdir())
    first.log(records[:1])
    first.log(records[:2])
    first.close()
    (tmp_path / "model.safetensors").touch()
    second = Trackers(Track(["mlflow"], model=True), tmp_path, {}, pytest.fail)
    second.log(records[:4])
    second.end(records, {})
    second.close()
    assert Fake.calls == [
        *[("open", (None, 0)), ("log", [1]), ("log", [2]), ("close", None)],
        *[("open", ("7", 2)), ("log", [3, 4]), ("log", [5]), ("end", ["model.safetensors"]), ("close", None)],
    ]


@pytest.mark.usefixtures("fakes")
def test_a_run_that_went_back_to_an_earlier_checkpoint_is_a_new_run_to_a_tracker(tmp_path: Path) -> None:
    (tmp_path / TRACK_FILE).write_text('{"mlflow": {"id": "3", "round": 9}}')
    Trackers(Track(["mlflow"]), tmp_path, {}, pytest.fail).log([{"round": 1}])
    assert Fake.calls == [("open", (None, 0)), ("log", [1])]


@pytest.mark.usefixtures("fakes")
def test_a_tracker_that_fails_is_named_once_and_the_others_go_on(start: Start) -> None:
    said: list[str] = []
    watch = SilentRun()
    watch.say = said.append  # type: ignore[method-assign]
    outcome = start('track.to=["wandb", "mlflow"]', watch=watch)
    assert outcome.summary["rounds"] == 3
    sentence = "the tracker wandb failed and gets nothing more (ConnectionError: nobody is there); the run goes on"
    assert [each.startswith(sentence) for each in said] == [True]
    logged = [number for verb, what in Fake.calls if verb == "log" for number in what]
    assert logged == [1, 2, 3]
    assert json.loads((outcome.folder / TRACK_FILE).read_text())["wandb"]["round"] == 0


def test_what_track_refuses(start: Start) -> None:
    with pytest.raises(Mistake, match=r'track.to = "wandbb": it must be one of tensorboard, mlflow, wandb'):
        start('track.to=["wandbb"]')
    with pytest.raises(Mistake, match=r"track.to = .*: it must be names, each once"):
        start('track.to=["wandb", "wandb"]')
    with pytest.raises(Mistake, match=r"track.model = true: only mlflow and wandb keep models"):
        start('track.to=["tensorboard"]', "track.model=true")


def test_a_package_that_is_missing_is_a_mistake_before_anything_is_written(
    start: Start, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(__import__("sys").modules, "tensorboard", None)
    with pytest.raises(Mistake, match=r"tensorboard, which is not installed; pip install 'coterie\[track\]'"):
        start('track.to=["tensorboard"]')
    assert not (tmp_path / "run").exists()


def test_the_stores_of_tensorboard_and_mlflow_hold_the_numbers_of_the_records(
    start: Start, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A run is interrupted after round 2, and goes on as if round 2 had been sent and that not been written down."""
    pytest.importorskip("tensorboard")
    mlflow = pytest.importorskip("mlflow")
    for name in ("MLFLOW_TRACKING_URI", "MLFLOW_EXPERIMENT_NAME"):
        monkeypatch.delenv(name, raising=False)
    settings = ('track.to=["tensorboard", "mlflow"]', "track.model=true", "rounds=4", "evaluate.every=2")
    with pytest.raises(KeyboardInterrupt):
        start(*settings, watch=Interrupt(after=3))
    path = start("rounds=4", "evaluate.every=2", out="plain").folder.parent / "run" / TRACK_FILE
    known = json.loads(path.read_text())
    for each in known.values():
        each["round"] = 0
    path.write_text(json.dumps(known))
    outcome = start(*settings, resume=True)
    folder, plain = outcome.folder, outcome.folder.parent / "plain"
    assert (folder / "model.safetensors").read_bytes() == (plain / "model.safetensors").read_bytes()
    lines = (folder / "rounds.jsonl").read_text().splitlines()
    expected: dict[str, list[tuple[int, float]]] = {}
    for record in map(json.loads, lines):
        for name, number in numbers_of(record).items():
            expected.setdefault(name, []).append((record["round"], number))
    assert [round for round, _ in expected["test_accuracy"]] == [2, 4]
    assert _read_tensorboard(folder) == {
        name: [(step, pytest.approx(number, rel=1e-6)) for step, number in curve] for name, curve in expected.items()
    }
    client = mlflow.MlflowClient(tracking_uri=(folder / "mlflow").as_uri())
    found = client.search_runs([client.get_experiment_by_name("coterie").experiment_id])
    assert [run.info.status for run in found] == ["FINISHED"]
    id = found[0].info.run_id
    read = {name: [(each.step, each.value) for each in client.get_metric_history(id, name)] for name in expected}
    assert read == expected
    assert found[0].data.params["algorithm.lr"] == "0.1"
    assert found[0].data.metrics["final/test_accuracy"] == outcome.summary["test_accuracy"]
    assert [each.path for each in client.list_artifacts(id, "model")] == ["model/model.safetensors"]


def _read_tensorboard(folder: Path) -> dict[str, list[tuple[int, float]]]:
    """The scalars of a run folder, as TensorBoard reads them."""
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    found = EventAccumulator(str(folder / "tensorboard"))
    found.Reload()
    return {name: [(each.step, each.value) for each in found.Scalars(name)] for name in found.Tags()["scalars"]}
