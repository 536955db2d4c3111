"""Training in bf16: close to float32, with weights and statistics that are float32, or refused in a sentence."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

import coterie
from coterie import Mistake
from coterie.core.engine import Engine
from coterie.engines.sequential import Sequential
from coterie.engines.vectorised import Vectorised
from coterie.experiment.run import run
from coterie.experiment.settings import load_settings
from coterie.models import build
from tests.experiment.files import DIGITS, written
from tests.federations import convolutional, distance, ragged, seed_set

ENGINES: dict[str, Any] = {"sequential": Sequential, "vectorised": Vectorised}
every_engine = pytest.mark.parametrize("engine", ENGINES.values(), ids=ENGINES)
RECIPES = {
    "fedavg, AdamW": coterie.fedavg(lr=0.01, batch_size=5, optimizer="adamw", weight_decay=0.1, accumulate=2),
    "fbn": coterie.fbn(lr=0.05, batch_size=5, local_steps=2),
    "hbn": coterie.hbn(lr=0.05, batch_size=5),
    "scaffold": coterie.scaffold(lr=0.05, batch_size=5),
    "fedh2l": coterie.fedh2l(lr=0.05, batch_size=5),
    "fedmd": coterie.fedmd(lr=0.05, batch_size=5),
    "fedssl": coterie.fedssl(lr=0.02, batch_size=8, projection=4, hidden=3),
}


def weights(recipe: coterie.Recipe, engine: Engine, model: nn.Module) -> dict[str, Tensor]:
    shape = (1, 8, 8)
    options: dict[str, Any] = {"engine": engine, "seed_set": seed_set(shape=shape), "rng_seed": 3}
    last = list(coterie.federate(recipe, model, ragged(shape=shape), rounds=2, **options))[-1]
    assert last.dropped == []
    return last.weights("1") if last.plan.algorithm.traits.own_models else last.weights()


@every_engine
@pytest.mark.parametrize("recipe", RECIPES.values(), ids=RECIPES)
def test_bf16_is_close_to_float32_and_not_the_same(engine: Any, recipe: coterie.Recipe) -> None:
    full = weights(recipe, engine(), convolutional().float())
    batched = engine(precision="bf16")
    half = weights(recipe, batched, convolutional().float())
    assert getattr(batched, "unbatched", {}) == {}
    assert {name: x.dtype for name, x in half.items()} == {name: x.dtype for name, x in full.items()}
    assert 1e-6 < distance(full, half) < 0.1


def test_a_step_has_the_gradient_of_autocast() -> None:
    """One client, one full batch, against PyTorch's own loop under autocast."""
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(6, 8), nn.ReLU(), nn.Linear(8, 3))
    x, y = ragged(sizes=(23,))["0"].tensors()
    one = {"0": ragged(sizes=(23,))["0"]}
    recipe = coterie.fedavg(lr=0.1, local_steps=1, batch_size="full")
    (last,) = coterie.federate(recipe, model, one, rounds=1, engine=Sequential(precision="bf16"))
    with torch.autocast("cpu", torch.bfloat16):
        outputs = model(x.float())
    nn.functional.cross_entropy(outputs.float(), y).backward()
    for name, p in model.named_parameters():
        assert p.grad is not None
        assert float((last.weights()[name] - (p.detach() - 0.1 * p.grad)).abs().max()) < 1e-6


def test_batch_normalisation_of_bf16_is_pytorchs_own() -> None:
    """One client, one full batch: the step and the running statistics are those of PyTorch's layers under autocast."""
    torch.manual_seed(0)
    model = nn.Sequential(nn.Conv2d(3, 8, 3), nn.BatchNorm2d(8), nn.ReLU(), nn.Flatten(), nn.Linear(288, 3))
    x, y = torch.randn(16, 3, 8, 8), torch.arange(16) % 3
    recipe = coterie.fedavg(lr=0.1, local_steps=1, batch_size="full")
    one = {"0": coterie.Examples(x, y)}
    (last,) = coterie.federate(recipe, model, one, rounds=1, engine=Sequential(precision="bf16"))
    with torch.autocast("cpu", torch.bfloat16):
        outputs = model.to(memory_format=torch.channels_last)(x.to(memory_format=torch.channels_last))
    nn.functional.cross_entropy(outputs.float(), y).backward()
    after = last.weights()
    for name, p in model.named_parameters():
        assert p.grad is not None
        assert float((after[name] - (p.detach() - 0.1 * p.grad)).abs().max()) < 2e-4, name
    assert torch.allclose(after["1.running_mean"], model[1].running_mean, atol=1e-5)
    assert torch.allclose(after["1.running_var"], model[1].running_var, atol=1e-5)


@every_engine
@pytest.mark.parametrize("name", ["char_lstm", "resnet20"])
def test_models_of_ours_train(engine: Any, name: str) -> None:
    g = torch.Generator().manual_seed(0)
    tokens = name == "char_lstm"
    x = torch.randint(0, 20, (12, 10), generator=g) if tokens else torch.randn(12, 3, 8, 8, generator=g)
    y = torch.randint(0, 20, (12,) if not tokens else (12, 10), generator=g) if tokens else torch.arange(12) % 3
    clients = {str(k): coterie.Examples(x[k::2], y[k::2]) for k in range(2)}
    model = build(name, x.shape[1:], 20 if tokens else 3, rng_seed=0)
    (last,) = coterie.federate(
        coterie.fedavg(lr=0.1, batch_size=3), model, clients, rounds=1, engine=engine(precision="bf16")
    )
    assert last.dropped == []
    assert {x.dtype for x in last.weights().values() if x.is_floating_point()} == {torch.float32}


def test_float64_is_refused() -> None:
    with pytest.raises(Mistake, match=r'precision = "bf16": it must be "full" with dtype = "float64"'):
        Vectorised(dtype=torch.float64, precision="bf16")


def test_a_device_without_it_is_refused() -> None:
    with pytest.raises(Mistake, match=r'precision = "bf16": it must be "full" on mps, which does not compute in bf16'):
        Sequential(torch.device("mps"), precision="bf16")


def test_a_file_takes_it(tmp_path: Path) -> None:
    file = written(tmp_path, DIGITS)
    run(load_settings(file, ["rounds=1", "engine.precision=bf16"]), tmp_path / "run")
    assert 'precision = "bf16"' in (tmp_path / "run" / "config.toml").read_text()
    with pytest.raises(Mistake, match=r'engine\.precision = "bf16": it must be "full" with dtype = "float64"'):
        run(load_settings(file, ["engine.precision=bf16", "engine.dtype=float64"]), tmp_path / "other")
