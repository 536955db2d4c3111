"""Code that a run folder names is run only if the user trusts it."""

import re
from collections.abc import Callable
from pathlib import Path

import pytest
import torch

from coterie.cli.main import main
from coterie.core.errors import Mistake
from coterie.data import load
from coterie.experiment.finished_run import load_finished_run
from coterie.experiment.run import run
from coterie.experiment.settings import load_settings
from coterie.experiment.trained_model import load_trained_model

CODE = """
from pathlib import Path
import torch
from torch import nn
from coterie import Examples
from coterie.data import Source

Path("trace").write_text("the code has run")

def data():
    x = torch.arange(80.0).reshape(40, 2) / 80
    examples = Examples(x, (x[:, 0] > 0.5).long())
    return Source("mine", examples, examples, 2)

def net():
    return nn.Linear(2, 2)
"""

FILE = """
rounds = 1
[data]
source = "parts_of_a_stranger:data"
num_clients = 2
[model]
name = "parts_of_a_stranger:net"
[algorithm]
name = "fedavg"
lr = 0.1
"""


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with an experiment, its code, its run folder, and rows to predict."""
    folder = tmp_path_factory.mktemp("home")
    (folder / "parts_of_a_stranger.py").write_text(CODE)
    (folder / "mine.toml").write_text(FILE)
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        run(load_settings(folder / "mine.toml"), folder / "run")
    (folder / "rows.csv").write_text("a,b\n1,2\n")
    return folder


@pytest.fixture
def trace(home: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Forgets the stranger's module; the file that its import writes."""
    monkeypatch.chdir(home)
    monkeypatch.delitem(__import__("sys").modules, "parts_of_a_stranger", raising=False)
    (home / "trace").unlink(missing_ok=True)
    return home / "trace"


@pytest.mark.parametrize("use", [load_trained_model, load_finished_run])
def test_a_folder_that_names_code_does_not_run_it(use: Callable[..., object], home: Path, trace: Path) -> None:
    says = (
        r'data.source = "parts_of_a_stranger:data": .*run names this code.* trust it with --trust \(in Python, trust='
    )
    with pytest.raises(Mistake, match=says):
        use(home / "run")
    assert not trace.exists()
    use(home / "run", trust=True)
    assert trace.exists()


@pytest.mark.parametrize(
    "command", [["predict", "run", "rows.npz"], ["probe", "line", "run", "run"], ["probe", "curvature", "run"]]
)
def test_the_command_says_which_code_it_would_run(
    command: list[str], trace: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit) as ended:
        main(command)
    assert ended.value.code == 2
    (sentence,) = capsys.readouterr().err.splitlines()
    assert "parts_of_a_stranger:data" in sentence
    assert "--trust" in sentence
    assert not trace.exists()


def test_with_trust_the_model_is_used_as_it_was_trained(home: Path, trace: Path) -> None:
    model = load_trained_model(home / "run", trust=True)
    assert torch.allclose(model.probabilities(torch.zeros(1, 2)).sum(), torch.ones(()))


def test_reports_and_comparisons_run_no_code(trace: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for command in (["report", "run"], ["compare", "run", "run"]):
        with pytest.raises(SystemExit) as ended:
            main(command)
        assert ended.value.code == 0
    assert not trace.exists()


def test_a_run_is_continued_with_the_code_of_the_users_own_file(home: Path, trace: Path) -> None:
    """A folder with other code is another run, and its code is not run to find that out."""
    assert run(load_settings(home / "mine.toml"), home / "run", resume=True).summary["rounds"] == 1
    other = load_settings(home / "mine.toml", ["model.name=logistic"])
    with pytest.raises(Mistake, match=r'model.name = "parts_of_a_stranger:net": .*names this code, but your file does'):
        run(other, home / "run", resume=True)


@pytest.mark.parametrize("name", ["os:system", "subprocess:run", "builtins:eval", "math:sqrt"])
def test_functions_of_python_itself_are_not_called(name: str, home: Path, trace: Path) -> None:
    """`model.name = "os:system"` was refused for its result, when it had run."""
    says = re.escape(f"{name.partition(':')[0]} is a part of Python; name a function of your own")
    with pytest.raises(Mistake, match=f"model.name .* {says}"):
        load_settings(home / "mine.toml", [f"model.name={name}", "model.command='touch trace'"])
    with pytest.raises(Mistake, match=says):
        load(name, command="touch trace")
    assert not (home / "trace").exists() or (home / "trace").read_text() == "the code has run"


def test_a_module_beside_the_file_may_have_a_name_of_pythons_own(tmp_path: Path) -> None:
    (tmp_path / "this.py").write_text(CODE.replace("Path(", "str(").replace(".write_text", ".join"))
    assert load("this:data", folders=[tmp_path]).num_classes == 2
