"""With how many threads a run computes: it is written down, and a resumed run never chooses again."""

import tomllib
from dataclasses import replace
from pathlib import Path

import pytest

from coterie.core.errors import Mistake
from coterie.core.threads import compute_with
from coterie.experiment import folder_jobs, shared_run
from coterie.experiment import run as run_module
from coterie.experiment.config_toml import adopt_choices, complete_threads, find_changes
from coterie.experiment.engine_choice import Machine
from coterie.experiment.settings import load_settings
from tests.experiment.conftest import Start
from tests.experiment.files import written


@pytest.fixture(autouse=True)
def used(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """The numbers of threads with which runs computed."""
    numbers: list[int] = []
    monkeypatch.setattr(folder_jobs, "write_report", lambda folder: (folder / "report.html").write_text("page"))
    monkeypatch.setattr(shared_run, "compute_with", lambda threads: compute_with(numbers.append(threads) or threads))
    return numbers


def test_a_resumed_run_keeps_its_threads_on_any_machine(
    start: Start, used: list[int], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    two = Machine(cores=2, memory=2**34, device="cpu", compiler=False, threads=2, threads_are_set=True)
    monkeypatch.setattr(run_module, "this_machine", lambda: two)
    folder = start("rounds=1").folder
    assert tomllib.loads((folder / "config.toml").read_text())["engine"]["threads"] == 2
    monkeypatch.setattr(run_module, "this_machine", lambda: replace(two, threads=1))
    start("rounds=2", resume=True)
    start("rounds=3", "engine.threads=2", resume=True)
    assert used == [2, 2, 2]
    assert start("rounds=1", out="other").folder.name == "other"
    assert used[-1] == 1
    with pytest.raises(Mistake, match=r"engine\.threads: changed since the run"):
        start("rounds=4", "engine.threads=1", resume=True)


def test_a_folder_without_threads_goes_on_with_those_that_it_had(tmp_path: Path) -> None:
    """An older version computed with PyTorch's default, and with one thread in each of several processes."""
    path = written(tmp_path)
    for workers, threads in ((1, 4), (2, 1)):
        old = load_settings(path, [f"engine.workers={workers}"])
        earlier = complete_threads(old, threads_by_default=4)
        assert earlier.engine.threads == threads
        adopted = adopt_choices(load_settings(path), earlier)
        assert adopted.engine.threads == threads
        assert "engine.threads" not in find_changes(adopted, earlier)


def test_threads_are_a_whole_number_or_auto(tmp_path: Path) -> None:
    with pytest.raises(Mistake, match=r"engine\.threads = 0"):
        load_settings(written(tmp_path), ["engine.threads=0"])
