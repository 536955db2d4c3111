"""Models that return a tuple, a dict or an object: which entry is taken as the outputs."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pytest
import torch
from torch import Tensor, nn

import coterie
from coterie import Mistake
from coterie.engines.sequential import Sequential
from coterie.experiment.run import run
from coterie.experiment.settings import load_settings
from coterie.experiment.trained_model import load_trained_model
from tests.algorithms.normed import ENGINES
from tests.federations import distance, ragged


@dataclass
class Answer:
    logits: Tensor
    hidden: Tensor


class Pair(NamedTuple):
    scores: Tensor
    hidden: Tensor


FORMS: dict[str, tuple[Any, str | int | None]] = {
    "a dict with logits": (lambda y, x: {"hidden": x, "logits": y}, None),
    "an object with logits": (Answer, None),
    "a dict with one tensor": (lambda y, x: {"out": y, "loss": None}, None),
    "a tuple of one": (lambda y, x: (y,), None),
    "a tuple": (lambda y, x: (x, y), 1),
    "a named tuple": (Pair, "scores"),
}


class Model(nn.Module):
    def __init__(self, form: Any) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.layer, self.form = nn.Linear(6, 3), form

    def forward(self, x: Tensor) -> Any:
        return self.form(self.layer(x), x)


def train(form: Any, **options: Any) -> coterie.Round:
    *_, last = coterie.federate(coterie.fedavg(lr=0.1), Model(form).double(), ragged(), rounds=2, **options)
    return last


@pytest.mark.parametrize("engine", ENGINES)
@pytest.mark.parametrize("form", FORMS)
def test_training_is_that_of_a_model_that_returns_one_tensor(form: str, engine: str) -> None:
    make, which = FORMS[form]
    make_engine = ENGINES[engine]
    plain = train(lambda y, x: y, engine=make_engine(dtype=torch.float64))
    taken = train(make, outputs=which, engine=make_engine(dtype=torch.float64))
    assert distance(plain.weights(), taken.weights()) == 0
    assert taken.train_loss == plain.train_loss


def test_a_loss_of_torch_takes_the_logits_too() -> None:
    plain = train(lambda y, x: y, loss=nn.CrossEntropyLoss())
    taken = train(Answer, loss=nn.CrossEntropyLoss())
    assert distance(plain.weights(), taken.weights()) == 0


@pytest.mark.parametrize(
    ("form", "which", "sentence"),
    [
        (lambda y, x: (x, y), None, "returns a tuple with 0, 1; say with outputs which"),
        (lambda y, x: {"a": x, "b": y}, "c", "outputs = \"c\": its forward returns a dict with 'a', 'b'"),
        (lambda y, x: y, "logits", "returns a Tensor with no tensors"),
        (lambda y, x: (y,), 0.5, "a name, or a place from 0"),
    ],
)
def test_what_is_not_clear_is_asked_for(form: Any, which: Any, sentence: str) -> None:
    with pytest.raises(Mistake, match=sentence):
        train(form, outputs=which, engine=Sequential())


def test_a_model_of_a_file_runs_and_predicts(tmp_path: Path) -> None:
    (tmp_path / "mine.py").write_text(
        "from torch import nn\n\n\nclass Net(nn.Module):\n"
        "    def __init__(self, num_classes):\n        super().__init__()\n"
        "        self.layer = nn.Linear(4, num_classes)\n\n"
        "    def forward(self, x):\n        return {'logits': self.layer(x), 'hidden': x}\n"
    )
    x = np.random.default_rng(0).normal(size=(60, 4)).astype(np.float32)
    np.savez(tmp_path / "data.npz", x=x, y=(x[:, 0] > 0).astype(int))
    path = tmp_path / "file.toml"
    path.write_text(
        'rounds = 2\n[data]\nsource = "npz"\npath = "data.npz"\nnum_clients = 2\n'
        '[model]\nname = "mine:Net"\n[algorithm]\nname = "fedavg"\nlr = 0.1\n'
    )
    run(load_settings(path), tmp_path / "run")
    trained = load_trained_model(tmp_path / "run", trust=True)
    assert trained.probabilities(torch.from_numpy(x)).shape == (60, 2)


def test_a_file_names_the_entry(tmp_path: Path) -> None:
    """The run, its checkpoint and its predictions take the same entry, and a wrong one is a sentence."""
    (tmp_path / "two_heads.py").write_text(
        "from torch import nn\n\n\nclass Net(nn.Module):\n"
        "    def __init__(self, num_classes):\n        super().__init__()\n"
        "        self.layer = nn.Linear(4, num_classes)\n\n"
        "    def forward(self, x):\n        return {'hidden': x, 'scores': self.layer(x)}\n"
    )
    x = np.random.default_rng(0).normal(size=(60, 4)).astype(np.float32)
    np.savez(tmp_path / "data.npz", x=x, y=(x[:, 0] > 0).astype(int))
    path = tmp_path / "file.toml"
    path.write_text(
        'rounds = 2\n[data]\nsource = "npz"\npath = "data.npz"\nnum_clients = 2\n'
        '[model]\nname = "two_heads:Net"\n[algorithm]\nname = "fedavg"\nlr = 0.5\n'
    )
    for override, sentence in (
        ([], r"^model\.name = .*returns a dict with 'hidden', 'scores'; say with outputs which"),
        (["model.outputs=logits"], r"returns a dict with 'hidden', 'scores'"),
        (["model.outputs=-1"], r"^model\.outputs = -1: it must be text in quotes, or a whole number"),
    ):
        with pytest.raises(Mistake, match=sentence):
            run(load_settings(path, override), tmp_path / "run")
        assert not (tmp_path / "run").exists()
    run(load_settings(path, ["model.outputs=scores"]), tmp_path / "run")
    trained = load_trained_model(tmp_path / "run", trust=True)
    assert torch.equal(trained.probabilities(torch.from_numpy(x)), trained.model(torch.from_numpy(x)).softmax(1))
