"""`coterie probe` on small runs of the digits."""

import re
from pathlib import Path

import pytest

from coterie.experiment.finished_run import load_comparable_runs, load_finished_run, loss_surface
from coterie.experiment.run import run
from coterie.experiment.settings import load_settings
from coterie.probes import line
from tests.cli.test_main import exit_status
from tests.experiment.files import DIGITS, written

NORMED = """import torch
from torch import nn
def net(in_shape, num_classes):
    return nn.Sequential(nn.Flatten(), nn.Linear(64, 8), nn.BatchNorm1d(8), nn.ReLU(), nn.Linear(8, num_classes))
"""


@pytest.fixture(scope="module")
def runs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Run a, b and c from one start, one run with BatchNorm, and one with a model for each client."""
    home = tmp_path_factory.mktemp("runs")
    (home / "normed_net.py").write_text(NORMED)
    file = written(home, DIGITS.replace("rounds = 3", "rounds = 1"))
    for name, overrides in {
        "a": (),
        "b": ("data.labels_per_client=1",),
        "c": ("data.labels_per_client=5",),
        "normed": ("model.name=normed_net:net",),
        "own": ("algorithm.name=independent",),
    }.items():
        run(load_settings(file, list(overrides)), home / name)
    return home


@pytest.fixture(autouse=True)
def here(runs: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(runs)


def test_a_line_between_two_runs(capsys: pytest.CaptureFixture[str]) -> None:
    """The printed numbers are those that the functions return."""
    assert exit_status("probe", "line", "a", "b", "--out", "pages/line.html") == 0
    out = capsys.readouterr().out
    a, b = load_comparable_runs([Path("a"), Path("b")])
    found = line(loss_surface(a, "test", 1000, "measured"), a.end, b.end)
    printed = re.search(r"barrier ([\d.e-]+), distance ([\d.]+)", out)
    assert printed is not None
    assert float(printed[1]) == pytest.approx(found.barrier, rel=1e-3, abs=1e-8)
    assert float(printed[2]) == pytest.approx(found.distance, rel=1e-3)
    page = Path("pages/line.html").read_text()
    assert page.count("<svg") == len(found.measures) == 2
    assert "began with the same weights</td><td>yes" in page
    assert "BatchNorm&#x27;s statistics</td><td>none" in page


def test_the_loss_at_the_end_is_the_loss_in_the_summary() -> None:
    """This holds on all test examples, with the statistics that the run saved."""
    for name in ("a", "normed"):
        it = load_finished_run(Path(name), trust=True)
        measured = [float(x) for x in re.findall(r'"test_loss": ([\d.]+)', Path(name, "summary.json").read_text())]
        assert loss_surface(it, "test", 10_000, "averaged").at(it.end)["loss"] == pytest.approx(measured[0], rel=1e-5)
    assert loss_surface(it, "test", 100, "measured").measure is not None


def test_a_plane_through_three_runs(capsys: pytest.CaptureFixture[str]) -> None:
    assert exit_status("probe", "plane", "a", "b", "c", "--points", "4", "--on", "train", "--examples", "50") == 0
    assert capsys.readouterr().out == "plane.html\n"
    page = Path("plane.html").read_text()
    assert page.count("<svg") == 2
    assert "digits, train, at most 50 examples" in page


def test_curvature_is_printed_for_the_start_and_the_end(capsys: pytest.CaptureFixture[str]) -> None:
    assert exit_status("probe", "curvature", "a", "normed", "--examples", "100", "--trust") == 0
    out = capsys.readouterr().out
    assert len(re.findall(r"(?:start|end) [\d.]+ \(residual", out)) == 4
    assert len(re.findall(r"travelled 0\.\d+, from weights of length", out)) == 2


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        (["line", "a", "absent"], "absent"),
        (["line", "a", "normed"], "model.name"),
        (["line", "a", "own"], "own: each of its clients has a model of its own"),
        (["plane", "a", "a", "b"], "the three models lie on one line"),
        (["line", "a", "b", "--on", "tset"], "--on tset: it must be test or train"),
        (["line", "a", "b", "--statistics", "none"], "--statistics none: it must be measured or averaged"),
    ],
)
def test_a_mistake_is_one_sentence(
    capsys: pytest.CaptureFixture[str], arguments: list[str], sentence: str, tmp_path: Path
) -> None:
    assert exit_status("probe", *arguments, "--out", str(tmp_path / "page.html")) == 2
    out, err = capsys.readouterr()
    assert sentence in err
    assert (err.count("\n"), out) == (1, "")
    assert list(tmp_path.iterdir()) == []


def test_a_run_without_a_model_is_not_finished(runs: Path, capsys: pytest.CaptureFixture[str]) -> None:
    saved = runs / "c" / "model.safetensors"
    content = saved.read_bytes()
    saved.unlink()
    assert exit_status("probe", "line", "a", "c") == 2
    assert "continue the run with --resume" in capsys.readouterr().err
    saved.write_bytes(b"not a model")
    assert exit_status("probe", "line", "a", "c") == 2
    assert "model.safetensors: " in capsys.readouterr().err
    saved.write_bytes(content)
