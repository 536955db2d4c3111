"""A pre-training from settings to report: what it leaves, that it can be repeated, and that a stop costs nothing."""

import json
import os
import signal
import subprocess
import sys
import time
import tomllib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import safetensors.torch
from torch import nn

from coterie import Mistake
from coterie.cli.main import main
from coterie.experiment import build_trainer as building
from coterie.experiment import folder_jobs, save_checkpoints, settings
from coterie.experiment import pretraining_run as module
from coterie.experiment.build_trainer import build_trainer
from coterie.experiment.folder_jobs import Outcome
from coterie.experiment.pretraining_run import SilentPretraining, pretrain
from coterie.experiment.pretraining_settings import Pretraining, load_pretraining
from coterie.models.registry import build
from coterie.report import compare_runs, write_report
from coterie.track.rounds_file import Record
from tests.experiment.files import DIGITS, written

FILE = """
[pretrain]
steps = 13
batch_size = 8
image_size = 8
num_systems = 60
points = 60
cached_systems = 24
projection = 8
interval = 2
[model]
name = "mlp"
hidden = [16]
"""
Start = Callable[..., Outcome]


@pytest.fixture
def start(tmp_path: Path) -> Start:
    """Trains what the file says, with overrides, into a folder of tmp_path."""
    path = written(tmp_path, FILE, "fractals.toml")

    def started(
        *overrides: str, out: str = "run", resume: bool = False, watch: module.PretrainingWatch | None = None
    ) -> Outcome:
        return pretrain(load_pretraining(path, overrides), tmp_path / out, resume, watch)

    return started


def test_a_training_that_diverges_ends_with_a_sentence_and_status_1(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """It went on to its last step with weights of NaN, and then the display failed."""
    monkeypatch.chdir(tmp_path)
    written(tmp_path, FILE, "fractals.toml")
    monkeypatch.setattr(folder_jobs, "write_report", write_report)
    for resume in ([], ["--resume"]):
        with pytest.raises(SystemExit) as ended:
            main(["pretrain", "fractals.toml", "pretrain.lr=1e30", *resume])
        assert ended.value.code == 1
        said = capsys.readouterr().err.splitlines()[-1]
        assert said.startswith("runs/fractals: the encoder's weights are not finite after step ")
    end = json.loads(Path("runs/fractals/summary.json").read_text())
    assert end["steps"] < 13
    assert said == f"runs/fractals: {end['failure']}"
    assert "This run trained nothing of use: the encoder" in Path("runs/fractals/report.html").read_text()


@pytest.fixture(autouse=True)
def quick(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    """A report and a sheet take longer than the training; only the test that looks at the files has them drawn."""
    if request.node.originalname != "test_what_a_pre_training_leaves":
        monkeypatch.setattr(folder_jobs, "write_report", lambda folder: (folder / "report.html").write_text("page"))
        monkeypatch.setattr(module, "draw_example_sheet", lambda sizes, rng_seed: b"picture")


TIMES = ("seconds", "elapsed", "images_per_second")


def lines(folder: Path) -> list[Record]:
    """intervals.jsonl without what no two runs share: its times."""
    records = [json.loads(line) for line in (folder / "intervals.jsonl").read_text().splitlines()]
    return [{k: v for k, v in r.items() if k not in TIMES} for r in records]


def end(folder: Path) -> dict[str, Any]:
    found = json.loads((folder / "summary.json").read_text())
    return {k: v for k, v in found.items() if k not in TIMES}


def same(a: Path, b: Path) -> None:
    """Two trainings ended alike, bit for bit."""
    assert lines(a) == lines(b)
    assert end(a) == end(b)
    assert (a / "model.safetensors").read_bytes() == (b / "model.safetensors").read_bytes()


class StopAfter(SilentPretraining):
    """Ctrl-C after an interval."""

    def __init__(self, interval: int) -> None:
        self.stop = interval
        self.said: list[str] = []

    def interval(self, record: Record) -> None:
        if record["interval"] == self.stop:
            raise KeyboardInterrupt

    def say(self, sentence: str) -> None:
        self.said.append(sentence)


def test_what_a_pre_training_leaves(start: Start) -> None:
    folder = start().folder
    names = {p.name for p in folder.iterdir() if not p.name.startswith(".")}
    expected = {"config.toml", "intervals.jsonl", "summary.json", "model.safetensors", "report.html", "sheet.png"}
    assert names == expected | {"checkpoint", "checksums.json"}
    assert [r["step"] for r in lines(folder)] == [2, 4, 6, 8, 10, 12, 13]
    record = json.loads((folder / "intervals.jsonl").read_text().splitlines()[0])
    assert record.keys() == {"interval", "step", "loss", "spread", "lr", *TIMES}
    assert -1 <= record["loss"] <= 1
    assert end(folder) == {
        "steps": 13,
        "images": 2 * 8 * 13,
        "loss": lines(folder)[-1]["loss"],
        "spread": lines(folder)[-1]["spread"],
        "collapsed": False,
    }
    weights = safetensors.torch.load_file(folder / "model.safetensors")
    model = build("mlp", [3, 8, 8], 10, 0, hidden=[16])
    assert list(weights) == ["1.bias", "1.weight"]  # the classifier, 3.weight and 3.bias, is left out
    assert model.load_state_dict(weights, strict=False).unexpected_keys == []
    assert (folder / "sheet.png").read_bytes().startswith(b"\x89PNG")
    page = (folder / "report.html").read_text()
    assert "data:image/png;base64," in page
    assert "spread of the outputs" in page
    before = page
    (folder / "report.html").unlink()
    assert write_report(folder).read_text() == before
    with pytest.raises(Mistake, match="is a pre-training, which has no rounds"):
        compare_runs([folder, folder])


def test_config_is_an_input_that_makes_it_again(start: Start, tmp_path: Path) -> None:
    first = start().folder
    tables = tomllib.loads((first / "config.toml").read_text())
    assert tables["pretrain"]["lr"] == 0.05
    assert (tables["pretrain"]["render_size"], tables["pretrain"]["max_objects"]) == (8, 2)
    assert tables["engine"] == {"device": "cpu"} or tables["engine"] == {"device": "cuda"}
    second = pretrain(load_pretraining(first / "config.toml"), tmp_path / "again").folder
    same(first, second)
    assert (first / "config.toml").read_bytes() == (second / "config.toml").read_bytes()


@pytest.mark.parametrize("loss", ["simsiam", "moco"])
def test_a_training_that_was_stopped_ends_like_one_that_was_not(start: Start, loss: str) -> None:
    options = (f"pretrain.loss={loss}", *(("pretrain.queue=16",) if loss == "moco" else ()))
    whole = start(*options, out="whole").folder
    for stop in (2, 5):
        with pytest.raises(KeyboardInterrupt):
            start(*options, out="parts", resume=stop > 2, watch=StopAfter(stop))
        assert len(lines(whole.parent / "parts")) == stop
    same(whole, start(*options, out="parts", resume=True).folder)


KILLED = """
import sys
from coterie.experiment import pretraining_run, save_checkpoints
save_checkpoints.MIN_PAUSE_SECONDS = 0.0
pretraining_run.draw_example_sheet = lambda sizes, rng_seed: b"picture"
from coterie.cli.main import main
main(sys.argv[1:])
"""


@pytest.mark.long
def test_a_training_that_was_killed_ends_like_one_that_was_not(start: Start, tmp_path: Path) -> None:
    """SIGKILL at an arbitrary instant, between whatever two writes."""
    overrides = ("pretrain.steps=60", "pretrain.interval=1")
    arguments = ["pretrain", str(tmp_path / "fractals.toml"), *overrides, "--out", str(tmp_path / "killed")]
    threads = {**os.environ, "OMP_NUM_THREADS": "1"}
    process = subprocess.Popen([sys.executable, "-c", KILLED, *arguments], stdout=subprocess.DEVNULL, env=threads)
    intervals = tmp_path / "killed" / "intervals.jsonl"
    while process.poll() is None and not (intervals.exists() and intervals.read_bytes().count(b"\n") >= 8):
        time.sleep(0.005)
    os.kill(process.pid, signal.SIGKILL)
    assert process.wait() == -signal.SIGKILL, "the training was over before it could be killed"
    seen: list[int] = []

    class Look(SilentPretraining):
        def begin(self, settings: Pretraining, model: nn.Module, folder: Path, records: list[Record]) -> None:
            seen.append(len(records))

    killed = start(*overrides, out="killed", resume=True, watch=Look()).folder
    assert 0 < seen[0] < 60
    same(start(*overrides, out="whole").folder, killed)


def test_a_damaged_checkpoint_costs_the_intervals_since_the_one_before(
    start: Start, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(save_checkpoints.CheckpointSaver, "due", True)
    with pytest.raises(KeyboardInterrupt):
        start(watch=StopAfter(4))
    newest = tmp_path / "run" / "checkpoint" / "state-4.safetensors"
    newest.write_bytes(newest.read_bytes()[:100])
    watch = StopAfter(0)
    start(resume=True, watch=watch)
    assert watch.said[0].endswith("continuing from interval 3")
    same(start(out="whole").folder, tmp_path / "run")


def test_a_finished_training_is_left_alone(start: Start) -> None:
    first = start()
    before = {p: p.read_bytes() for p in first.folder.rglob("*") if p.is_file()}
    assert not start(resume=True).ran
    assert {p: p.read_bytes() for p in first.folder.rglob("*") if p.is_file()} == before
    with pytest.raises(Mistake, match="holds a run already; continue it with --resume"):
        start()
    with pytest.raises(Mistake, match=r"pretrain\.lr, pretrain\.steps: changed since the run"):
        start("pretrain.steps=30", "pretrain.lr=0.1", resume=True)


def test_minutes_become_steps_once(start: Start, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A step that takes 0.25 s fits 12 times into 0.05 minutes; a resume does not look at the time again."""
    monkeypatch.setattr(building, "_seconds_per_step", lambda trainer: 0.25)
    with pytest.raises(KeyboardInterrupt):
        start("pretrain.minutes=0.05", watch=StopAfter(2))
    tables = tomllib.loads((tmp_path / "run" / "config.toml").read_text())
    assert (tables["pretrain"]["minutes"], tables["pretrain"]["steps"]) == (0.05, 12)
    monkeypatch.setattr(building, "_seconds_per_step", lambda trainer: 99.0)
    end = start("pretrain.minutes=0.05", resume=True).summary
    assert end["steps"] == 12
    same(start("pretrain.steps=12", out="whole").folder, tmp_path / "run")


def test_the_first_steps_are_timed(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(building, "MIN_TIMED_SECONDS", 0.0)
    _, trainer = build_trainer(load_pretraining(written(tmp_path, FILE), ["engine.device=cpu"]))
    began = time.perf_counter()
    seconds = building._seconds_per_step(trainer)
    assert 0 < seconds <= time.perf_counter() - began
    assert trainer.step == building.MIN_TIMED_STEPS


def test_a_collapse_is_said(start: Start, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: Any) -> None:
    """An encoder that gives the same for every image."""
    (tmp_path / "own_constant.py").write_text(
        "from torch import nn\n"
        "def net(in_shape, num_classes):\n"
        "    model = nn.Sequential(nn.Flatten(), nn.Linear(192, 4), nn.Linear(4, num_classes))\n"
        "    nn.init.zeros_(model[1].weight)\n"
        "    return model\n"
    )
    monkeypatch.chdir(tmp_path)
    arguments = ["pretrain", "fractals.toml", "model.name=own_constant:net", "pretrain.steps=2", "pretrain.lr=1e-9"]
    with pytest.raises(SystemExit) as ended:
        main(arguments)
    assert ended.value.code == 0
    out, err = capsys.readouterr()
    assert "0.00, collapsed" in out
    assert "the outputs have collapsed" in err
    assert end(tmp_path / "runs" / "fractals")["collapsed"] is True


def test_the_command_shows_how_it_goes_and_where_it_ended(
    start: Start, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: Any
) -> None:
    monkeypatch.chdir(tmp_path)
    for extra, first in (([], "writing to runs/fractals"), (["--resume"], "finished already, after 13 steps")):
        with pytest.raises(SystemExit) as ended:
            main(["pretrain", "fractals.toml", *extra])
        out = capsys.readouterr().out
        assert ended.value.code == 0
        assert first in out
        assert out.splitlines()[-2:] == ["runs/fractals/model.safetensors", "runs/fractals/report.html"]
    with monkeypatch.context() as patched:
        patched.setattr("coterie.cli.pretrain_command.PretrainingDisplay.interval", StopAfter.interval)
        patched.setattr("coterie.cli.pretrain_command.PretrainingDisplay.stop", 2, raising=False)
        with pytest.raises(SystemExit) as ended:
            main(["pretrain", "fractals.toml", "--out", "b"])
    assert ended.value.code == 1
    assert "coterie pretrain fractals.toml --out b --resume" in capsys.readouterr().err


WRONG = [
    ("pretrain.stps=3", "pretrain.stps = 3: there is no such key; did you mean pretrain.steps?"),
    ("pretrain.steps=0", "pretrain.steps = 0: it must be a whole number, 1 or more"),
    ("pretrain.steps=1.5", "pretrain.steps = 1.5: it must be a whole number"),
    ("pretrain.method=byol", 'pretrain.method = "byol": it must be "fps"'),
    ("pretrain.loss=byol", 'pretrain.loss = "byol": it must be "simsiam" or "moco"'),
    ("pretrain.channels=2", "pretrain.channels = 2: it must be 1 or 3"),
    ("pretrain.queue=64", 'pretrain.queue = 64: the loss "simsiam" does not take it'),
    ("model.nme=cnn", "model.nme"),
    ("model={}", "model.name is missing"),
    ("model={name='resnet21'}", 'model.name = "resnet21": did you mean "resnet20"?'),
    ("model={name='char_lstm'}", 'model.name = "char_lstm": it takes sequences'),
    ("model={name='logistic'}", "nothing to train before its last linear layer"),
    ("model={name='own_misfit:net'}", "cannot take images of shape [3, 8, 8]"),
    ("engine.device=warp", 'engine.device = "warp": cannot be used here'),
    ("engine.dtype=float64", "engine.dtype"),
    ("algorithm.lr=0.1", "is an experiment, not a pre-training; `coterie run` runs it"),
    ("cohort.size=2", "[cohort]: there is no such table"),
]


@pytest.mark.parametrize(("override", "sentence"), WRONG, ids=[w[0] for w in WRONG])
def test_a_mistake_is_status_2_and_nothing_is_written(
    start: Start, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: Any, override: str, sentence: str
) -> None:
    (tmp_path / "own_misfit.py").write_text(
        "from torch import nn\ndef net(num_classes): return nn.Sequential(nn.Linear(5, 4), nn.Linear(4, num_classes))\n"
    )
    monkeypatch.chdir(tmp_path)
    with pytest.raises(SystemExit) as ended:
        main(["pretrain", "fractals.toml", override])
    assert ended.value.code == 2
    out, err = capsys.readouterr()
    assert sentence in err
    assert err.count("\n") == 1
    assert out == ""
    assert not (tmp_path / "runs").exists()


def test_an_experiment_s_file_is_refused_and_minutes_and_steps_replace_one_another(tmp_path: Path) -> None:
    with pytest.raises(Mistake, match="is an experiment, not a pre-training; `coterie run` runs it"):
        load_pretraining(written(tmp_path, DIGITS))
    with pytest.raises(Mistake, match="is an experiment, not a pre-training; `coterie run` runs it"):
        load_pretraining(written(tmp_path, '[[stage]]\nname = "fractals"\n'))
    with pytest.raises(Mistake, match="is a pre-training, not an experiment; `coterie pretrain` runs it"):
        settings.load_settings(written(tmp_path, FILE))
    path = written(tmp_path, FILE)
    assert load_pretraining(path, ["pretrain.minutes=3"]).pretrain.steps is None
    assert load_pretraining(path, ["pretrain.steps=7"]).pretrain.steps == 7
    assert "hidden" not in load_pretraining(path, ["model.name=cnn"]).model  # mlp's own


def test_a_checkpoint_s_folder_is_looked_for_where_the_file_is(tmp_path: Path) -> None:
    (tmp_path / "vit").mkdir()
    path = written(tmp_path, FILE.replace('"mlp"\nhidden = [16]', '"huggingface:vit"'))
    assert load_pretraining(path).model["name"] == f"huggingface:{(tmp_path / 'vit').resolve()}"
    assert load_pretraining(path, ["model.name=huggingface:on/the_hub"]).model["name"] == "huggingface:on/the_hub"


def test_batchnorm_may_become_another_normalisation(tmp_path: Path) -> None:
    changed = ["pretrain.image_size=8", "model.name=resnet20", "model.normalisation=group", "engine.device=cpu"]
    model, _ = build_trainer(load_pretraining(written(tmp_path, FILE), changed))
    kinds = [type(module).__name__ for module in model.modules()]
    assert kinds.count("GroupNorm") == 19  # one behind each of ResNet-20's convolutions
    assert "BatchNorm2d" not in kinds


@pytest.mark.parametrize("minutes", [5, 15, 30])
def test_the_experiments_last_as_long_as_they_say(minutes: int) -> None:
    folder = Path(__file__).parents[2] / "experiments"
    found = load_pretraining(folder / f"fps-{minutes}min.toml")
    assert found.pretrain.minutes == minutes
    assert found.model["name"] == "resnet20"


def test_bf16_is_a_setting_of_the_engine(start: Start, tmp_path: Path) -> None:
    """The weights are close to those of float32 and not the same, they are float32, and a resume is bit for bit."""
    start("pretrain.steps=4", out="full")
    start("pretrain.steps=4", "engine.precision=bf16", out="half")
    assert 'precision = "bf16"' in (tmp_path / "half" / "config.toml").read_text()
    full, half = (safetensors.torch.load_file(tmp_path / out / "model.safetensors") for out in ("full", "half"))
    assert {x.dtype for x in half.values()} == {x.dtype for x in full.values()}
    largest = max(float((half[name] - x).abs().max()) for name, x in full.items())
    assert 0 < largest < 0.01
    with pytest.raises(Mistake, match=r'engine\.precision = "half"'):
        load_pretraining(tmp_path / "fractals.toml", ["engine.precision=half"])
