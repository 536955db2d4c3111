"""A chain of stages: what each does, what the folder holds, that a stop costs nothing, and what is refused."""

import json
from pathlib import Path

import pytest
import safetensors.torch
import torch

from coterie import Mistake
from coterie.experiment import folder_jobs, pretraining_run
from coterie.experiment.folder_jobs import Outcome
from coterie.experiment.pretraining_run import SilentPretraining
from coterie.experiment.pretraining_settings import Pretraining
from coterie.experiment.run import SilentRun
from coterie.experiment.settings import Settings, load_settings
from coterie.experiment.staged_run import run_stages
from coterie.experiment.stages import Stage, load_stages
from coterie.report import write_report
from coterie.track.rounds_file import Record
from tests.experiment.files import written

CHAIN = """
rounds = 3
[data]
source = "digits"
partition = "label"
num_clients = 5
labels_per_client = 2
examples_per_client = 20
[model]
name = "mlp"
hidden = [16, 8]
[algorithm]
name = "fedavg"
lr = 0.1
proximal = 0
[[stage]]
name = "fractals"
[stage.pretrain]
method = "fps"
steps = 4
batch_size = 8
image_size = 8
channels = 1
num_systems = 20
points = 60
cached_systems = 20
projection = 8
interval = 1
[[stage]]
rounds = 2
[stage.algorithm]
name = "fedssl"
lr = 0.05
[[stage]]
name = "labels"
"""
CHAIN = CHAIN.replace("proximal = 0\n", "")


class Quiet:
    """Watches a chain, and stops it like Ctrl-C after a record of a stage."""

    def __init__(self, stage: int = 0, record: int = 0) -> None:
        self.stop = (stage, record)
        self.over: list[tuple[str, bool]] = []

    def _check(self, stage: Stage, number: int) -> None:
        if (stage.number, number) == self.stop:
            raise KeyboardInterrupt

    def run_watch(self, stage: Stage) -> SilentRun:
        watch, check = SilentRun(), self._check

        def round(record: Record) -> None:
            check(stage, record["round"])

        watch.round = round  # type: ignore[method-assign]
        return watch

    def pretraining_watch(self, stage: Stage) -> SilentPretraining:
        watch, check = SilentPretraining(), self._check

        def interval(record: Record) -> None:
            check(stage, record["interval"])

        watch.interval = interval  # type: ignore[method-assign]
        return watch

    def end(self, stage: Stage, outcome: Outcome) -> None:
        self.over.append((stage.name, outcome.ran))


@pytest.fixture(autouse=True)
def quick(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    """No report or sheet is drawn, which takes longer than a stage."""
    monkeypatch.setattr(folder_jobs, "write_report", lambda folder: (folder / "report.html").write_text("page"))
    monkeypatch.setattr(pretraining_run, "draw_example_sheet", lambda sizes, rng_seed: b"picture")


def chain(folder: Path, *overrides: str) -> list[Stage]:
    return load_stages(written(folder, CHAIN, "chain.toml"), overrides)


def weights(folder: Path) -> dict[str, torch.Tensor]:
    return safetensors.torch.load_file(folder / "model.safetensors")


def test_each_stage_has_the_files_keys_under_its_own(tmp_path: Path) -> None:
    first, second, third = chain(tmp_path)
    assert [stage.folder_name for stage in (first, second, third)] == ["1-fractals", "2-fedssl", "3-labels"]
    assert isinstance(first.settings, Pretraining)
    assert isinstance(second.settings, Settings)
    assert isinstance(third.settings, Settings)
    assert first.settings.model["hidden"] == [16, 8]
    assert (second.settings.rounds, second.settings.algorithm["lr"]) == (2, 0.05)
    assert (third.settings.rounds, third.settings.algorithm["name"]) == (3, "fedavg")
    assert second.settings.data == third.settings.data


def test_overrides_are_of_the_file_or_of_a_stage(tmp_path: Path) -> None:
    overrides = ["rounds=7", "stage.2.rounds=4", "stage.labels.algorithm.lr=0.3", "stage.1.pretrain.steps=9"]
    first, second, third = (stage.settings for stage in chain(tmp_path, *overrides))
    assert isinstance(first, Pretraining)
    assert isinstance(second, Settings)
    assert isinstance(third, Settings)
    assert first.pretrain.steps == 9
    assert (second.rounds, third.rounds, third.algorithm["lr"]) == (4, 7, 0.3)


def test_a_chain_that_is_stopped_in_each_stage_ends_like_an_unbroken_one(tmp_path: Path) -> None:
    whole = tmp_path / "whole"
    watch = Quiet()
    run_stages(chain(tmp_path), whole, False, watch)
    assert watch.over == [("fractals", True), ("fedssl", True), ("labels", True)]
    for stage, record in ((1, 2), (2, 1), (3, 2)):
        with pytest.raises(KeyboardInterrupt):
            run_stages(chain(tmp_path), tmp_path / "stopped", stage > 1, Quiet(stage, record))
    watch = Quiet()
    run_stages(chain(tmp_path), tmp_path / "stopped", True, watch)
    assert watch.over == [("fractals", False), ("fedssl", False), ("labels", True)]
    for name in ("stages/1-fractals", "stages/2-fedssl", "."):
        same = [(tmp_path / run / name / "model.safetensors").read_bytes() for run in ("whole", "stopped")]
        assert same[0] == same[1]
    begun = weights(whole / "stages" / "2-fedssl" / "start")
    assert all(torch.equal(begun[name], x) for name, x in weights(whole / "stages" / "1-fractals").items())
    begun, before = weights(whole / "start"), weights(whole / "stages" / "2-fedssl")
    assert all(torch.equal(begun[name], x) for name, x in before.items())
    assert json.loads((whole / "summary.json").read_text())["rounds"] == 3
    page = write_report(whole).read_text()
    assert '<a href="stages/1-fractals/report.html">1-fractals</a></td><td>4 steps' in page
    assert '<a href="stages/2-fedssl/report.html">2-fedssl</a></td><td>2 rounds' in page

    watch = Quiet()
    run_stages(chain(tmp_path), whole, True, watch)
    assert [ran for _, ran in watch.over] == [False, False, False]
    moved = whole.rename(tmp_path / "moved")
    run_stages(chain(tmp_path, "stage.3.rounds=4"), moved, True, Quiet())
    assert json.loads((moved / "summary.json").read_text())["rounds"] == 4
    for overrides, sentence in (
        (["stage.2.rounds=5"], "stage 2, fedssl: rounds = 5: 2 are done, and a later stage has begun"),
        (["stage.1.pretrain.steps=5"], "stage 1, fractals: pretrain.steps: changed since the run"),
        (["stage.2.algorithm.lr=0.5"], "stage 2, fedssl: algorithm.lr: changed since the run"),
        (["stage.2.name=other"], "holds the stage 2-fedssl, which the file does not have"),
    ):
        with pytest.raises(Mistake, match=sentence):
            run_stages(chain(tmp_path, *overrides), moved, True, Quiet())
    with pytest.raises(Mistake, match="holds a run already; continue it with --resume"):
        run_stages(chain(tmp_path), moved, False, Quiet())


@pytest.mark.parametrize(
    ("overrides", "sentence"),
    [
        (["stage.4.rounds=1"], r"there are the stages 1 \(fractals\), 2 \(fedssl\), 3 \(labels\)"),
        (["stage.2.name=a/b"], 'stage.2.name = "a/b": it must be at most 41 letters'),
        (["stage.2.lr=1"], "stage 2, fedssl: lr = 1: there is no such key"),
        (["stage.2.pretrain.weights=x"], "stage 2, fedssl: pretrain.weights = .*: it starts from the weights of the"),
        (["stage.3.pretrain.method=fps"], "stage 3, labels: "),
        (["stage.2.algorithm.name=independent"], "stage 2, independent: each client ends with a model of its own"),
        (["stage.3.model.hidden=[16, 4]"], "stage 3, labels: .*the stage before does not fit the model"),
        (["stage.1.model.name=cnn"], "stage 1, fractals: "),
        (["stage.3.data.source=nowhere"], 'stage 3, labels: data.source = "nowhere"'),
    ],
)
def test_a_mistake_names_the_stage_and_nothing_is_written(overrides: list[str], sentence: str, tmp_path: Path) -> None:
    with pytest.raises(Mistake, match=sentence):
        run_stages(chain(tmp_path, *overrides), tmp_path / "run", False, Quiet())
    assert not (tmp_path / "run").exists()


def test_an_override_that_every_stage_sets_itself_is_refused(tmp_path: Path) -> None:
    text = 'rounds = 1\n[[stage]]\nrounds = 2\n[[stage]]\nname = "b"\nrounds = 3\n'
    with pytest.raises(Mistake, match="rounds: every stage sets it itself; write "):
        load_stages(written(tmp_path, text, "both.toml"), ["rounds=5"])


def test_a_chain_is_not_an_experiment(tmp_path: Path) -> None:
    with pytest.raises(Mistake, match="is a chain of stages, not one experiment"):
        load_settings(written(tmp_path, CHAIN, "chain.toml"))
    with pytest.raises(Mistake, match="stages are written as tables"):
        load_stages(written(tmp_path, "[stage]\nrounds = 1\n", "one.toml"))
