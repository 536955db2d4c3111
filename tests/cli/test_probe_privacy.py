"""`coterie probe privacy` on small runs."""

import json
from pathlib import Path
from typing import Any

import pytest

from coterie.experiment.run import run
from coterie.experiment.settings import load_settings
from coterie.privacy.accountant import Event, spent
from coterie.probes.protections import DELTA
from coterie.report.run_page import write_report
from tests.cli.test_main import exit_status
from tests.experiment.files import DIGITS, written

QUICK = ("--iterations", "3", "--clients", "2", "--batches", "1", "--noise", "0.1", "--examples", "100")
TEXT = """import torch
from torch import nn
from coterie.core.examples import Examples
from coterie.data import Source

def words() -> Source:
    g = torch.Generator().manual_seed(0)
    x = torch.randint(40, (60, 6), generator=g)
    return Source("words", Examples(x, (x[:, 0] > 20).long()), Examples(x[:20], (x[:20, 0] > 20).long()), 2)

class Net(nn.Module):
    def __init__(self):
        super().__init__()
        self.words, self.out = nn.Embedding(40, 4), nn.Linear(4, 2)
    def forward(self, x):
        return self.out(self.words(x).mean(1))

def net():
    return Net()
"""

WORDS = """
rounds = 1
[data]
source = "text_parts:words"
num_clients = 3
[model]
name = "text_parts:net"
[algorithm]
name = "fedavg"
lr = 0.1
"""


@pytest.fixture(scope="module")
def runs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Run the digits, and a text."""
    home = tmp_path_factory.mktemp("runs")
    (home / "text_parts.py").write_text(TEXT)
    file = written(home, DIGITS.replace("rounds = 3", "rounds = 1"))
    run(load_settings(file), home / "a")
    run(load_settings(written(home, WORDS, "text.toml")), home / "text")
    return home


@pytest.fixture(autouse=True)
def here(runs: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(runs)


def test_both_attacks_are_printed_kept_and_drawn(capsys: pytest.CaptureFixture[str]) -> None:
    """The model begins with a dense layer, so one example is exact in closed form unless noise or top-k hides it."""
    assert exit_status("probe", "privacy", "a", *QUICK, "--compare", "text", "--trust", "--shadows", "2") == 0
    out = capsys.readouterr().out
    assert "the attack reconstructs what the client held (100.0 dB" in out
    assert "fails proves nothing" in out
    found = json.loads(Path("a/privacy.json").read_text())
    (batch,) = found["inversion"]["batches"]
    rows = {row["protection"]: row for row in batch["rows"]}
    assert rows["none"]["succeeded"]
    assert rows["none"]["labels"] == 1.0
    assert rows["none"]["mse"] < 1e-6 < batch["baseline"]["mse"]
    assert not rows["noise 0.1 at the client"]["succeeded"]
    assert [(row["run"], row["attack"]) for row in found["membership"]] == [
        ("a", "loss"),
        ("a", "lira"),
        ("text", "loss"),
        ("text", "lira"),
    ]
    assert all(0 <= row["auc"] <= 1 for row in found["membership"])
    page = Path("a/report.html").read_text()
    assert "What attacks found" in page
    assert page.count("data:image/png") == 1 + len(rows)
    assert "Run coterie probe privacy again" not in page


HIDING = ("privacy.unit=example", "privacy.clip_norm=0.01", "privacy.noise_multiplier=2.0", "privacy.delta=1e-3")


def rows_of(folder: str) -> dict[str, dict[str, Any]]:
    assert exit_status("probe", "privacy", folder, *QUICK, "--attack", "inversion", "--no-pictures") == 0
    (batch,) = json.loads(Path(folder, "privacy.json").read_text())["inversion"]["batches"]
    return {row["protection"]: row for row in batch["rows"]}


def test_a_run_that_hides_examples_is_attacked_with_its_noise_and_without(runs: Path) -> None:
    """Without it the closed form finds the one example. One step on all that the client holds is one Gaussian."""
    run(load_settings(runs / "digits.toml", HIDING), runs / "hiding")
    rows = rows_of("hiding")
    assert rows["none"]["succeeded"]
    for z in (2.0, 0.1):
        row = rows[f"noise {z:g} on examples' gradients"]
        assert not row["succeeded"]
        assert row["epsilon"] == pytest.approx(spent({Event(z): 1}, DELTA))


def test_the_same_command_finds_the_same() -> None:
    def measure() -> str:
        options = ("--attack", "inversion", "--work", "round", "--at", "end", "--no-pictures")
        assert exit_status("probe", "privacy", "a", *QUICK, *options) == 0
        return Path("a/privacy.json").read_text()

    assert measure() == measure()
    assert "data:image/png" not in Path("a/report.html").read_text()


def test_a_changed_model_is_not_described_by_an_old_attack(runs: Path) -> None:
    """The file holds the digest of the model that was attacked."""
    path = runs / "text" / "privacy.json"
    path.write_text('{"model": "of an earlier one", "membership": []}')
    write_report(runs / "text")
    assert "Run coterie probe privacy again" in (runs / "text" / "report.html").read_text()
    path.unlink()


def test_words_of_a_text_follow_from_its_update(capsys: pytest.CaptureFixture[str]) -> None:
    assert exit_status("probe", "privacy", "text", *QUICK, "--trust", "--attack", "inversion") == 0
    assert "reconstructs what the client held (100.00 % of the tokens" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        (["absent"], "absent"),
        (["silos"], "silos: its clients' examples are at silos"),
        (["text"], "--trust"),
        (["a", "--compare", "silos"], "silos: its clients' examples are at silos"),
        (["a", "--client", "nobody"], "--client nobody: the run has no such client"),
        (["a", "--batches", "100000"], "--batches 100000: client"),
        (["a", "--batches", "two"], "--batches two: it must be whole numbers"),
        (["a", "--noise", "-1"], "--noise -1: it must be above 0"),
        (["a", "--attack", "all"], "--attack all: it must be both, inversion or membership"),
        (["a", "--shadows", "3"], "--shadows 3: it must be an even number"),
        (["a", "--match", "dlg"], "--match dlg: it must be cosine or squared"),
    ],
)
def test_a_mistake_is_one_sentence(
    capsys: pytest.CaptureFixture[str], runs: Path, arguments: list[str], sentence: str
) -> None:
    (runs / "silos").mkdir(exist_ok=True)
    (runs / "silos" / "silos.json").write_text("[]")
    (runs / "a" / "privacy.json").unlink(missing_ok=True)
    assert exit_status("probe", "privacy", *arguments, "--iterations", "3") == 2
    out, err = capsys.readouterr()
    assert sentence in err
    assert (err.count("\n"), out) == (1, "")
    assert not (runs / "a" / "privacy.json").exists()
