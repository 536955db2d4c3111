"""Run folders that an earlier version wrote go on as they would have then, and are reported on, compared and used.

`older_folders/NAME` holds an experiment, the folder of its run after two rounds, and in `expected` the weights after
four, all three by the code of that time.
"""

import csv
import importlib.util
import json
import shutil
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import safetensors.torch
import torch
from sklearn.datasets import load_digits
from torch import Tensor, nn

from coterie.cli.main import main

OLDER = Path(__file__).parent / "older_folders"
NAMES = ["scaffold", "fbn", "fedh2l"]
IN_SHAPE, NUM_CLASSES = [1, 8, 8], 10


@pytest.fixture
def older(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[[str], Path]:
    """Copies an older experiment into the working directory, which is another than the one it began in."""
    monkeypatch.chdir(tmp_path)

    def copied(name: str) -> Path:
        shutil.copytree(OLDER / name, tmp_path, dirs_exist_ok=True)
        return tmp_path / "run"

    return copied


def called(*arguments: str) -> int:
    """The command's exit status."""
    with pytest.raises(SystemExit) as ended:
        main(arguments)
    return int(ended.value.code or 0)


def weights(folder: Path) -> dict[str, dict[str, Tensor]]:
    """The tensors of a run's model, or of each client's, by file."""
    files = [*folder.glob("model.safetensors"), *folder.glob("clients/*.safetensors")]
    return {str(file.relative_to(folder)): safetensors.torch.load_file(file) for file in files}


@pytest.mark.parametrize("name", NAMES)
def test_it_goes_on_as_it_would_have_then(name: str, older: Callable[[str], Path]) -> None:
    run = older(name)
    before = (run / "rounds.jsonl").read_text()
    assert called("run", "experiment.toml", "rounds=4", "--out", "run", "--resume") == 0
    lines = (run / "rounds.jsonl").read_text()
    assert lines.startswith(before)
    assert [json.loads(line)["round"] for line in lines.splitlines()] == [1, 2, 3, 4]
    assert json.loads((run / "summary.json").read_text())["rounds"] == 4
    found, expected = weights(run), weights(OLDER / name / "expected")
    assert found.keys() == expected.keys() == weights(OLDER / name / "run").keys()
    for file, tensors in expected.items():
        torch.testing.assert_close(found[file], tensors, atol=1e-6, rtol=1e-6)


@pytest.mark.parametrize("name", NAMES)
def test_it_is_reported_on_and_compared(
    name: str, older: Callable[[str], Path], tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    run = older(name)
    assert called("report", "run") == 0
    assert caplog.messages == ["run: has no checksums.json, so its files are not checked for damage"]
    assert (run / "report.html").stat().st_size > 10_000
    shutil.copytree(run, tmp_path / "same")
    assert called("compare", "run", "same", "--out", "compare.html") == 0
    assert (tmp_path / "compare.html").stat().st_size > 10_000


def network(folder: Path, name: str) -> nn.Module:
    """The network of that name, without the package."""
    if name.startswith("older_nets:"):
        spec = importlib.util.spec_from_file_location("nets_of_a_test", folder / "older_nets.py")
        assert spec is not None
        assert spec.loader is not None
        module = importlib.util.module_from_spec(spec)
        spec.loader.exec_module(module)
        made: nn.Module = getattr(module, name.removeprefix("older_nets:"))(IN_SHAPE, NUM_CLASSES)
        return made
    layers: dict[str, list[nn.Module]] = {
        "mlp": [nn.Linear(64, 8), nn.ReLU(), nn.Linear(8, 10)],
        "logistic": [nn.Linear(64, 10)],
    }
    return nn.Sequential(nn.Flatten(), *layers[name])


@pytest.mark.parametrize(
    ("name", "client", "model"),
    [
        ("scaffold", None, "mlp"),
        ("fbn", None, "older_nets:normed"),
        ("fedh2l", "0", "logistic"),
        ("fedh2l", "1", "older_nets:dense"),
        ("fedh2l", "2", "older_nets:normed"),
    ],
)
def test_its_predictions_are_its_models_own(
    name: str, client: str | None, model: str, older: Callable[[str], Path], tmp_path: Path
) -> None:
    run = older(name)
    x = (load_digits().images[:40, None] / 16).astype(np.float32)
    np.savez(tmp_path / "rows.npz", x=x)
    own = network(tmp_path, model).eval()
    own.load_state_dict(weights(run)["model.safetensors" if client is None else f"clients/{client}.safetensors"])
    with torch.no_grad():
        expected = own(torch.from_numpy(x)).softmax(1)
    predict = ("predict", "run", "rows.npz", *(() if client is None else ("--client", client)))
    if "older_nets" in (run / "config.toml").read_text():  # code of the folder's own
        assert called(*predict) == 2
    assert called(*predict, "--trust") == 0
    with (tmp_path / "predictions.csv").open(newline="") as file:
        head, *rows = csv.reader(file)
    assert head == ["example", "prediction", *(f"p({digit})" for digit in range(10))]
    assert len(rows) == 40
    found = torch.tensor([[float(cell) for cell in row[2:]] for row in rows])
    torch.testing.assert_close(found, expected, atol=1e-5, rtol=1e-5)
    assert [row[1] for row in rows] == [str(k) for k in expected.argmax(1).tolist()]
