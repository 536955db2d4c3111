"""The examples run, for a few rounds, and learn; guessing one of ten digits is right in one case of ten."""

import importlib.util
from pathlib import Path
from types import ModuleType

import pytest
import torch

from coterie import Examples, federate
from coterie.engines.sequential import Sequential
from coterie.engines.vectorised import Vectorised
from tests.federations import distance, ragged

FOLDER = Path(__file__).resolve().parents[2] / "examples"


def example(name: str) -> ModuleType:
    """Imported afresh, without running its last lines."""
    spec = importlib.util.spec_from_file_location(name, FOLDER / f"{name}.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_fedavg_by_hand_deals_two_digits_to_each_client_and_learns(capsys: pytest.CaptureFixture[str]) -> None:
    by_hand = example("fedavg_by_hand")
    dealt = torch.cat([*by_hand.clients, by_hand.test])
    assert sorted(dealt.tolist()) == list(range(len(by_hand.x)))
    assert {len(by_hand.y[rows].unique()) for rows in by_hand.clients} == {2}
    assert "coterie" not in (FOLDER / "fedavg_by_hand.py").read_text(encoding="utf-8")
    assert by_hand.server(rounds=15) > 0.6
    assert len(capsys.readouterr().out.splitlines()) == 15


def test_your_algorithm_learns(capsys: pytest.CaptureFixture[str]) -> None:
    assert example("your_algorithm").main(rounds=30) > 0.6
    assert len(capsys.readouterr().out.splitlines()) == 3


def test_a_majority_of_two_moves_every_weight_by_the_rate() -> None:
    """Three clients with one example each, of which two are alike: whatever the third says, w moves by lr times the
    sign of the two's gradient, and a vote costs a byte per number."""
    signsgd = example("your_algorithm").signsgd
    x, model = torch.ones(1, 6), torch.nn.Linear(6, 3)
    clients = {
        "a": Examples(x, torch.tensor([0])), "b": Examples(x, torch.tensor([0])), "c": Examples(x, torch.tensor([1]))
    }  # fmt: skip
    loss = torch.nn.functional.cross_entropy(model(x), torch.tensor([0]))
    gradient = torch.autograd.grad(loss, model.weight)[0]
    (only,) = federate(signsgd(lr=0.25), model, clients, rounds=1)
    assert torch.allclose(only.weights()["weight"], model.weight - 0.25 * gradient.sign())
    assert only.bytes_up == 3 * (6 * 3 + 3)


def test_your_algorithm_runs_on_every_engine() -> None:
    """A layer without BatchNorm behind it, whose bias would have a gradient of rounding alone, and a sign of chance."""
    recipe, model = example("your_algorithm").signsgd(lr=0.01, batch_size=5), torch.nn.Linear(6, 3).double()
    batched = Vectorised(dtype=torch.float64)
    ends = [
        list(federate(recipe, model, ragged(), rounds=3, engine=engine))[-1].weights()
        for engine in (Sequential(dtype=torch.float64), batched)
    ]
    assert batched.unbatched == {}
    assert distance(*ends) < 1e-12
