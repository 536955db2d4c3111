"""Runs that train nothing: a sentence, status 1, and a folder that says so."""

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import load_file

from coterie.cli.main import main
from coterie.experiment import folder_jobs
from coterie.loop.faults import Faults
from coterie.report import run_page
from coterie.track.checksums import CHECKSUMS_FILE
from tests.experiment.files import written

REPORTS = ("test_a_run_in_which_no_update_counts_fails", "test_a_comparison_calls_it_failed")
VAIN = ("run", "digits.toml", "rounds=4", "evaluate.every=4")


def exit_status(*arguments: str) -> int:
    """Run the command, and return its exit status."""
    with pytest.raises(SystemExit) as ended:
        main(arguments)
    return int(ended.value.code or 0)


@pytest.fixture(autouse=True)
def folder(request: pytest.FixtureRequest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Make a working directory that holds only the digits experiment; return where its run goes.

    A report takes longer than a run of digits; only the tests that look at one have it drawn.
    """
    if request.node.originalname not in REPORTS:
        monkeypatch.setattr(folder_jobs, "write_report", lambda folder: (folder / "report.html").write_text("page"))
    monkeypatch.chdir(tmp_path)
    written(tmp_path)
    return Path("runs/digits")


def summary(folder: Path) -> dict[str, object]:
    found: dict[str, object] = json.loads((folder / "summary.json").read_text())
    return found


@pytest.mark.parametrize(
    ("override", "reason"),
    [
        ("algorithm.lr=1e38", "holds numbers that are not finite (so for 20 of 20); lower the learning rate (lr)"),
        (
            "faults.drop=1.0",
            "dropped out (so for 20 of 20); lower the probability that a client drops out (faults.drop)",
        ),
        ('aggregation={name="krum", num_byzantine=1}', ""),
    ],
)
def test_a_run_in_which_no_update_counts_fails(
    override: str, reason: str, folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """It ended with exit status 0 and the accuracy of its initial weights."""
    rest = ["faults.drop=0.9", "rng_seed=3"] if "krum" in override else []
    assert exit_status(*VAIN, override, *rest) == 1
    err = capsys.readouterr().err.splitlines()
    assert "no client's update was accepted in rounds 1 to 3, so nothing was trained there: " in err[0]
    assert err[-1].startswith(
        f"{folder}: no client's update was accepted in any of 4 rounds, so the run ends with the "
    )
    assert err[-1].endswith(reason)
    end = summary(folder)
    assert f"{folder}: {end['failure']}" == err[-1]
    page = (folder / "report.html").read_text()
    assert "This run trained nothing of use: no client" in page.partition("class=tiles")[0]
    assert {path.name for path in folder.iterdir()} >= {
        "model.safetensors",
        "clients.json",
        "rounds.jsonl",
        "checkpoint",
    }

    assert exit_status(*VAIN, override, *rest, "--resume") == 1  # the same answer again
    assert capsys.readouterr().err.splitlines()[-1] == err[-1]
    assert summary(folder) == end


def test_a_comparison_calls_it_failed(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert exit_status(*VAIN, "faults.drop=1.0", "rounds=1") == 1
    assert exit_status("run", "digits.toml", "rounds=1", "--out", "runs/good") == 0
    capsys.readouterr()
    assert exit_status("compare", str(folder), "runs/good") == 0
    assert any(line.split() == ["state", "failed", "finished"] for line in capsys.readouterr().out.splitlines())
    assert "failure" not in summary(Path("runs/good"))
    assert "trained nothing" not in Path("runs/good/report.html").read_text()


def test_a_run_whose_earlier_rounds_counted_does_not_fail(
    folder: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Two rounds train, and then nobody answers any more."""
    monkeypatch.setattr(Faults, "of", lambda faults, seed, round, client: "drop" if round > 2 else None)
    assert exit_status("run", "digits.toml", "rounds=2") == 0
    assert exit_status("run", "digits.toml", "rounds=6", "--resume") == 0
    assert "no client's update was accepted in rounds 3 to 5" in capsys.readouterr().err
    assert "failure" not in summary(folder)


def test_predictions_of_a_failed_run_say_that_it_failed(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert exit_status("run", "digits.toml", "rounds=1", "faults.drop=1.0") == 1
    np.savez("new.npz", x=np.zeros((2, 1, 8, 8), dtype=np.float32))
    assert exit_status("predict", str(folder), "new.npz") == 0
    assert f"note: {folder} failed, so its predictions are of no use: no client" in capsys.readouterr().err


def test_no_target_is_reached_by_outputs_that_are_not_numbers(folder: Path) -> None:
    """argmax of NaN is class 0, whose share of the test data reached a low target in the first round."""
    Path("broken.py").write_text(
        "import torch\nfrom torch import nn\n\n\ndef make(in_shape, num_classes):\n"
        "    model = nn.Sequential(nn.Flatten(), nn.Linear(64, num_classes))\n"
        "    nn.init.constant_(model[1].bias, float('nan'))\n    return model\n"
    )
    given = ["model={name='broken:make'}", "evaluate.target_accuracy=0.05", "rounds=2"]
    assert exit_status("run", "digits.toml", *given) == 1
    end = summary(folder)
    assert (end["test_accuracy"], end["rounds"], end["stopped"]) == (0, 2, "rounds")
    records = [json.loads(line) for line in (folder / "rounds.jsonl").read_text().splitlines()]
    assert all(record["test_outputs_not_finite"] == records[0]["test_outputs_not_finite"] > 300 for record in records)


def test_a_client_s_own_model_that_is_not_finite_is_named(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    Path("broken.py").write_text(
        "import torch\nfrom torch import nn\n\n\ndef make(in_shape, num_classes):\n"
        "    model = nn.Sequential(nn.Flatten(), nn.Linear(64, num_classes))\n"
        "    nn.init.constant_(model[1].weight, float('nan'))\n    return model\n"
    )
    assert (
        exit_status("run", "digits.toml", "model={name='broken:make'}", "algorithm.name=independent", "rounds=1") == 1
    )
    assert "the model of client 0 is not finite in params/1.weight" in capsys.readouterr().err.splitlines()[-1]


def test_personal_models_that_diverge_stay_at_their_last_finite_weights(folder: Path) -> None:
    given = ["algorithm.name=independent", "algorithm.lr=1e38", "rounds=2", "algorithm.local_epochs=2"]
    assert exit_status("run", "digits.toml", *given) == 1
    for path in (folder / "clients").iterdir():
        assert all(torch.isfinite(x).all() for x in load_file(path).values())


def test_the_report_of_an_unfinished_run_says_so_too(folder: Path) -> None:
    assert exit_status(*VAIN, "faults.drop=1.0") == 1
    for name in ("summary.json", CHECKSUMS_FILE):  # as while it ran
        (folder / name).unlink()
    run_page.write_report(folder)
    assert "no client&#x27;s update was accepted so far" in (folder / "report.html").read_text()
