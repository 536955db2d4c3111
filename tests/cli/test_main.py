"""The command as a user types it: its output and its exit status."""

import csv
import os
import re
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import typer

import coterie
from coterie.cli.interrupts import handle_interrupts
from coterie.cli.main import main
from coterie.cli.run_display import RunDisplay
from coterie.experiment import run as module
from tests.data.sources.test_idx import write_four
from tests.experiment.files import written


def exit_status(*arguments: str) -> int:
    """Run the command, and return its exit status."""
    with pytest.raises(SystemExit) as ended:
        main(arguments)
    return int(ended.value.code or 0)


@pytest.fixture(autouse=True)
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Make a working directory that holds only the digits experiment."""
    monkeypatch.chdir(tmp_path)
    return written(tmp_path)


def test_a_run_ends_with_the_path_of_its_report(capsys: pytest.CaptureFixture[str]) -> None:
    assert exit_status("run", "digits.toml", "rounds=2", "algorithm.lr=0.2") == 0
    out, err = capsys.readouterr()
    assert out.splitlines()[-1] == "runs/digits/report.html"
    assert Path("runs/digits/report.html").stat().st_size > 10_000
    assert err == ""
    assert re.search(
        r"^round 2/2  accuracy [\d.]+ %  loss [\d.]+  \d+\.\d kB sent  [\d,]+ examples/s$", out, re.MULTILINE
    )
    assert re.search(r"^time went to +work \d+ %", out, re.MULTILINE)
    assert "5 of 10 clients in a round" in out
    assert exit_status("run", "digits.toml", "rounds=2", "algorithm.lr=0.2", "--resume") == 0
    assert "runs/digits: finished already, after 2 rounds" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        (["run", "digits.toml", "algorithm.mometum=0.9"], "did you mean algorithm.momentum?"),
        (["run", "digits.toml", "algorithm.lr=-1"], "algorithm.lr = -1: it must be a number above 0"),
        (["run", "digits.toml", 'probe.names=["drfit"]'], 'probe.names = "drfit": did you mean "drift"?'),
        (["run", "digits.toml", "probe.every=2"], "probe.names is missing; it must be a list, of text in quotes"),
        (["run", "digits.toml", 'probe.names=["drift"]', "probe.evry=2"], "did you mean probe.every?"),
        (["run", "digits.toml", "algorithm.name=independent", 'probe.names=["drift"]'], "no differences of weights"),
        (["run", "absent.toml"], "absent.toml: there is no such file"),
        (["run", "digits.toml", "--out", "digits.toml/run"], "digits.toml/run: cannot be "),
        (["report", "."], "is not a run folder"),
        (["compare", ".", "."], "is not a run folder"),
        (["compare", ".", ".", "--target", "97"], "--target 97: it must be an accuracy, above 0 and at most 1"),
        (["data", "fetch", "npz"], "npz: needs data.path"),
        (["data", "show", "dijits"], "digits"),
    ],
)
def test_a_mistake_is_one_sentence_on_standard_error_and_status_2(
    capsys: pytest.CaptureFixture[str], arguments: list[str], sentence: str
) -> None:
    assert exit_status(*arguments) == 2
    out, err = capsys.readouterr()
    assert sentence in err
    assert err.count("\n") == 1
    assert out == ""
    assert sorted(p.name for p in Path().iterdir()) == ["digits.toml"]


@pytest.mark.parametrize("arguments", [["--help"], ["data", "--help"], ["probe", "--help"], ["deploy", "--help"]])
def test_the_help_is_in_whole_sentences(capsys: pytest.CaptureFixture[str], arguments: list[str]) -> None:
    assert exit_status(*arguments) == 0
    listed = capsys.readouterr().out.partition("Commands:\n")[2].splitlines()
    assert len(listed) >= 3
    assert [line for line in listed if not line.endswith(".") or line.endswith("...")] == []


@pytest.mark.parametrize("arguments", [["run"], ["run", "digits.toml", "--frobnicate"], ["dance"]])
def test_a_wrong_use_of_the_command_is_status_2(arguments: list[str]) -> None:
    assert exit_status(*arguments) == 2


def test_an_error_that_is_not_the_users_leaves_a_traceback(monkeypatch: pytest.MonkeyPatch) -> None:
    """Python then ends with status 1."""

    def broken(*arguments: object) -> None:
        raise ZeroDivisionError

    monkeypatch.setattr(module, "build_experiment", broken)
    with pytest.raises(ZeroDivisionError):
        main(["run", "digits.toml"])


def test_an_interrupt_within_a_round_does_not_claim_to_keep_it(
    capsys: pytest.CaptureFixture[str],
) -> None:
    with pytest.raises(typer.Exit), handle_interrupts("coterie run a.toml --resume", "round"):
        raise KeyboardInterrupt("stopped at once; continue from the last checkpoint")
    said = "stopped at once; continue from the last checkpoint with\n  coterie run a.toml --resume\n"
    assert capsys.readouterr().err == said


def test_an_interrupt_says_how_to_continue(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    def interrupt(self: RunDisplay, record: dict[str, object]) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patched:
        patched.setattr(RunDisplay, "round", interrupt)
        assert exit_status("run", "digits.toml", "rounds=2", "--out", "my run") == 1
    err = capsys.readouterr().err
    command = "coterie run digits.toml rounds=2 --out 'my run' --resume"
    assert command in err
    assert exit_status("run", "digits.toml", "rounds=2", "--out", "my run", "--resume") == 0
    assert "continuing after round 1" in capsys.readouterr().out


def test_reports_and_comparisons(capsys: pytest.CaptureFixture[str]) -> None:
    for lr in ("0.1", "0.2"):
        assert exit_status("run", "digits.toml", "rounds=1", f"algorithm.lr={lr}", "--out", lr) == 0
    capsys.readouterr()
    before = Path("0.1/report.html").read_bytes()
    Path("0.1/report.html").unlink()
    assert exit_status("report", "0.1", "0.2") == 0
    assert capsys.readouterr().out.split() == ["0.1/report.html", "0.2/report.html"]
    assert Path("0.1/report.html").read_bytes() == before
    assert exit_status("compare", "0.1", "0.2") == 0
    lines = capsys.readouterr().out.splitlines()
    assert lines[1].split() == ["algorithm.lr", "0.1", "0.2"]
    assert lines[-1] == "compare.html"
    assert Path("compare.html").exists()
    assert exit_status("compare", "0.1", "0.2", "--csv", "-", "--latex", "table.tex") == 0
    said = capsys.readouterr()
    assert [row["algorithm.lr"] for row in csv.DictReader(said.out.splitlines())] == ["0.1", "0.2"]
    assert said.err.split() == ["table.tex", "compare.html"]
    assert not Path("-").exists()


def test_help_reports_and_comparisons_need_no_pytorch() -> None:
    """They run in a process where importing PyTorch fails."""
    for lr in ("0.1", "0.2"):
        assert exit_status("run", "digits.toml", "rounds=1", f"algorithm.lr={lr}", "--out", lr) == 0
    program = "import sys; sys.modules['torch'] = None; from coterie.cli.main import main; main(sys.argv[1:])"
    command = [sys.executable, "-c", program]
    here = os.environ | {"PYTHONPATH": str(Path(coterie.__file__).parents[1])}
    for arguments, said in (["--help"], "compare"), (["report", "0.1"], "report.html"), (["compare", "0.1", "0.2"], ""):
        done = subprocess.run([*command, *arguments], capture_output=True, text=True, env=here, check=False)
        assert (done.returncode, done.stderr) == (0, "")
        assert said in done.stdout


def test_data_can_be_listed_and_shown(capsys: pytest.CaptureFixture[str]) -> None:
    assert exit_status("data", "list") == 0
    assert {"digits", "mnist", "npz"} <= {line.split()[0] for line in capsys.readouterr().out.splitlines()}
    assert exit_status("data", "fetch", "digits") == 0
    assert capsys.readouterr().out == "digits: ready, 1,438 training and 359 test examples\n"
    assert exit_status("data", "show", "digits.toml", "data.num_clients=5") == 0
    out = capsys.readouterr().out.splitlines()
    assert out[0] == "train: 1,438 examples of shape [1, 8, 8], float32"
    assert len(out) == 4 + 1 + 5 + 2  # the source, the head of a table, its lines, and what follows
    assert out[-2:] == ["5 clients (label), 359 test examples", "clients.html"]
    page = Path("clients.html").read_text()
    assert "5 clients with 1,438 examples together" in page
    assert "<svg" in page
    assert exit_status("data", "show", "digits", "--out", "none.html") == 0
    assert "clients of its own: none" in capsys.readouterr().out
    assert not Path("none.html").exists()  # nobody holds any of it yet


def test_natural_clients_are_shown_with_remarks(capsys: pytest.CaptureFixture[str]) -> None:
    np.savez(
        "wards.npz", x=np.zeros((7, 2)), y=np.array([0, 1, 0, 1, 0, 1, 2]), ward=[*"aaaaab", "b"], test=[0] * 6 + [1]
    )
    exit_status("data", "show", "npz", "path=wards.npz", "client_column=ward")
    out, err = capsys.readouterr()
    assert out.splitlines()[-2:] == ["2 clients (natural), 1 test examples", "clients.html"]
    assert err.splitlines() == [
        "note: client b holds a single example, so every update from there is about that example",
        "note: class 2: in test examples only, so no client can learn it",
    ]


def test_labels_are_shown_by_their_names(capsys: pytest.CaptureFixture[str]) -> None:
    rows = [f"{i},{'healthy' if i % 3 else 'diseased'},{'ab'[i % 2]}" for i in range(12)]
    Path("wards.csv").write_text("\n".join(["dose,label,ward", *rows]))
    exit_status("data", "show", "csv", "path=wards.csv", "client_column=ward")
    lines = [line.split() for line in capsys.readouterr().out.splitlines()]
    assert ["a", "5", "diseased:", "2,", "healthy:", "3"] in lines
    assert "diseased" in Path("clients.html").read_text()


def test_fetching_a_source_fetches_the_source_that_it_is_made_of(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("COTERIE_DATA", str(Path.cwd()))
    write_four(Path("mnist"))
    assert exit_status("data", "fetch", "rotated_mnist", "mnist") == 0
    assert capsys.readouterr().out == "mnist: ready, 24 training and 12 test examples\n"
    assert exit_status("data", "fetch", "rotated") == 2
    assert "rotated: needs data.of, so it has no files" in capsys.readouterr().err
    assert exit_status("data", "list") == 0
    files = {words[0]: words[1] for line in capsys.readouterr().out.splitlines() if len(words := line.split()) > 1}
    assert (files["mnist"], files["rotated_mnist"], files["digits_mix"]) == ("folder", "folder", "-")


def test_the_module_is_the_command() -> None:
    """It runs in a process of its own."""
    command = [sys.executable, "-m", "coterie", "run", "digits.toml", "round=3"]
    done = subprocess.run(command, capture_output=True, text=True, env=os.environ | {"COLUMNS": "80"}, check=False)
    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr == "round = 3: there is no such key; did you mean rounds?\n"
