"""Checkpoints are written beside the training: it goes on meanwhile, and a kill or a full disk costs nothing."""

import shutil
import threading
from pathlib import Path

import pytest
import torch

from coterie import Mistake
from coterie.experiment import folder_jobs, save_checkpoints
from coterie.experiment.build_experiment import Experiment
from coterie.experiment.run import SilentRun
from coterie.loop import checkpoint
from coterie.loop.plan import Resume
from coterie.loop.store import Store
from coterie.track import RunFolder
from coterie.track.rounds_file import Record
from tests.experiment.conftest import Start
from tests.experiment.test_run import same


@pytest.fixture(autouse=True)
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    """A report takes longer than a run of digits."""
    monkeypatch.setattr(folder_jobs, "write_report", lambda folder: (folder / "report.html").write_text("page"))


class CopyAt(SilentRun):
    """Copies the run folder after a round, as a process that is killed there leaves it, and lets the disk write."""

    def __init__(self, round: int, to: Path, disk: threading.Event) -> None:
        self.round_to_copy, self.to, self.disk = round, to, disk

    def begin(self, experiment: Experiment, folder: Path, records: list[Record]) -> None:
        self.folder = folder

    def round(self, record: Record) -> None:
        if record["round"] == self.round_to_copy:
            shutil.copytree(self.folder, self.to)
            self.disk.set()


def test_rounds_go_on_while_a_checkpoint_is_written_and_a_kill_then_costs_nothing(
    start: Start, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The second checkpoint hangs at its first write while eight rounds are run. A run killed there, and one that goes
    on, end alike."""
    disk, right, begun = threading.Event(), checkpoint.write_atomic, list[str]()

    def write(path: Path, data: bytes) -> None:
        if "-1." not in path.name:
            begun.append(path.name)
            assert disk.wait(60)
        right(path, data)

    monkeypatch.setattr(checkpoint, "write_atomic", write)
    monkeypatch.setattr(save_checkpoints, "MIN_PAUSE_SECONDS", 0.0)
    monkeypatch.setattr(save_checkpoints, "PAUSE_PER_SECOND", 0.0)
    whole = start("rounds=12", out="whole", watch=CopyAt(10, tmp_path / "killed", disk)).folder
    left = tmp_path / "killed" / "checkpoint"
    assert [path.name for path in left.glob("manifest-*")] == ["manifest-1.json"]
    assert begun[0].startswith("state-")
    assert int(begun[0].split("-")[1].split(".")[0]) < 10
    assert len((tmp_path / "killed" / "rounds.jsonl").read_text().splitlines()) == 10
    same(start("rounds=12", out="killed", resume=True).folder, whole)


def test_a_checkpoint_that_cannot_be_written_beside_the_training_ends_the_run_with_its_sentence(
    start: Start, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The failure is the thread's; the sentence, and the end of the run, are the command's. Mended, it goes on."""
    fails = [True]
    right = checkpoint.write_atomic

    def write(path: Path, data: bytes) -> None:
        if fails[0] and "-1." not in path.name:
            assert threading.current_thread() is not threading.main_thread()
            raise OSError(28, "No space left on device")
        right(path, data)

    monkeypatch.setattr(checkpoint, "write_atomic", write)
    monkeypatch.setattr(save_checkpoints.CheckpointSaver, "due", True)
    with pytest.raises(Mistake, match=r"checkpoint: cannot be written \(No space left on device\); solve that"):
        start("rounds=6", out="mended")
    fails[0] = False
    same(start("rounds=6", out="mended", resume=True).folder, start("rounds=6", out="whole").folder)


def test_a_checkpoint_is_of_a_copy(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """What is written into the state while the thread waits does not reach the disk."""
    may_write = threading.Event()
    right = checkpoint.write_atomic
    monkeypatch.setattr(checkpoint, "write_atomic", lambda *given: (may_write.wait(60), right(*given))[1])
    saver = save_checkpoints.CheckpointSaver(RunFolder(tmp_path))
    state = {"w": torch.ones(3)}
    saver.newest = Resume(1, state, Store(), 0.5)
    with saver.save_on_interrupt():
        saver.save()
        assert (saver.saved, saver.due) == (0, False)
        state["w"].zero_()
        may_write.set()
    assert saver.saved == 1
    found = save_checkpoints.CheckpointSaver(RunFolder(tmp_path)).load()
    assert found is not None
    assert found.state["w"].tolist() == [1.0, 1.0, 1.0]
