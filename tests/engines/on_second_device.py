"""Federations on a second device end where they end on the CPU, and keep what they make there.

Run by `test_second_device.py` in a process of its own, since PyTorch must know the device before its first gradient.
"""

import os
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import torch

import coterie
from coterie import Communication, Privacy, Round
from coterie.aggregation import aggregation
from coterie.attacks import attack
from coterie.core import tree
from coterie.core.engine import Engine
from coterie.data import augmentation
from coterie.engines.sequential import Sequential
from coterie.engines.vectorised import Vectorised
from coterie.loop.checkpoint import Checkpoints
from coterie.probes import PROBES, Probe
from tests.common.programs import make as make_program
from tests.common.recipes import RECIPES
from tests.common.test_every_algorithm import all_weights, every_round
from tests.engines.second_device import OnDevice, second_device, set_up
from tests.federations import distance, ragged, seed_set

if os.environ.get("COTERIE_SECOND_DEVICE"):  # not where the file is only looked through for examples in docstrings
    set_up()
ENGINES: dict[str, Callable[..., Engine]] = {"sequential": Sequential, "vectorised": Vectorised}
CPU = torch.device("cpu")
RULES: list[tuple[str, dict[str, Any]]] = [
    ("median", {}),
    ("geometric_median", {}),
    ("centred_clipping", {"radius": 1.0}),
    *((name, {"num_byzantine": 1}) for name in ("trimmed_mean", "krum", "multi_krum", "mda", "meamed")),
    ("median", {"pre": ["bucketing"], "num_byzantine": 1}),
    ("median", {"pre": ["nnm", "clip"], "num_byzantine": 1, "clip_length": 1.0}),
]
every_engine = pytest.mark.parametrize("engine", ENGINES)


@pytest.fixture(autouse=True)
def device() -> Iterator[torch.device]:
    with second_device() as device:
        yield device


def run(recipe: Any, engine: Engine, **options: Any) -> list[Round]:
    return list(every_round(recipe, engine, **options))


def host(named: dict[str, Any]) -> dict[str, torch.Tensor]:
    return {name: value.cpu() for name, value in named.items()}


def assert_alike(a: Any, b: Any) -> None:
    """Numbers in dicts and lists are the same up to rounding, everything else is the same."""
    if isinstance(a, dict):
        assert list(a) == list(b)
        for key in a:
            assert_alike(a[key], b[key])
    elif isinstance(a, list | tuple):
        assert len(a) == len(b)
        for x, y in zip(a, b, strict=True):
            assert_alike(x, y)
    elif isinstance(a, float):
        assert b == pytest.approx(a, rel=1e-6, abs=1e-9, nan_ok=True)
    else:
        assert a == b


def agree(recipe: Any, engine: str, device: torch.device, **options: Any) -> Round:
    """Run on both devices, compare all weights and measures, and return the last round of the second device."""
    make = ENGINES[engine]
    here = run(recipe, make(CPU, torch.float64), **options)
    there = run(recipe, make(device, torch.float64), **options)
    assert distance(all_weights(here[-1]), host(all_weights(there[-1]))) < 1e-12
    for a, b in zip(here, there, strict=True):
        assert a.dropped == b.dropped
        assert_alike(a.measures, b.measures)
    return there[-1]


@every_engine
@pytest.mark.parametrize("name", RECIPES)
def test_an_algorithm(name: str, engine: str, device: torch.device, tmp_path: Path) -> None:
    """And it goes on after a stop bit for bit."""
    last = agree(RECIPES[name], engine, device, rounds=3)
    assert all(isinstance(leaf, OnDevice) for leaf in tree.leaves(last.state) if leaf.dim())
    first = run(RECIPES[name], ENGINES[engine](device, torch.float64), rounds=2)
    Checkpoints(tmp_path).save(first[-1])
    rest = run(RECIPES[name], ENGINES[engine](device, torch.float64), rounds=3, resume=Checkpoints(tmp_path).load())
    assert distance(host(all_weights(last)), host(all_weights(rest[-1]))) == 0


@every_engine
def test_evaluation(engine: str, device: torch.device) -> None:
    test = {"test": seed_set(40), "own_test": ragged(), "evaluate_clients": True}
    last = agree(RECIPES["fedavg"], engine, device, **test, metrics=["auroc", "f1", "balanced_accuracy"])
    assert last.test_accuracy is not None


@every_engine
@pytest.mark.parametrize("codec", ["float16", "uint8", "top_k"])
def test_a_codec(codec: str, engine: str, device: torch.device) -> None:
    up = Communication(codec, 0.1) if codec == "top_k" else Communication(codec)
    agree(RECIPES["fedavg"], engine, device, up=up)


@every_engine
@pytest.mark.parametrize(
    "keys",
    [
        {"secure_sum": True},
        {"unit": "client", "clip_norm": 0.5, "noise_multiplier": 1.0, "noise": "rng_seed"},
        {"unit": "client", "clip_norm": 0.5, "clip": "adaptive", "noise_multiplier": 1.0, "noise": "rng_seed"},
        {"unit": "example", "clip_norm": 0.5, "noise_multiplier": 1.0, "noise": "rng_seed"},
        {"unit": "example", "clip_norm": 0.5, "noise_multiplier": 1.0, "noise": "rng_seed", "secure_sum": True},
    ],
    ids=["secure sum", "client", "adaptive", "example", "example in a secure sum"],
)
def test_a_guarantee(keys: dict[str, Any], engine: str, device: torch.device) -> None:
    torch.manual_seed(0)
    options = {"clients": ragged((30, 30, 30, 30)), "faults": None, "cohort": None, "num_classes": 3}
    agree_linear(keys, engine, device, options)


def agree_linear(keys: dict[str, Any], engine: str, device: torch.device, options: dict[str, Any]) -> None:
    def ends(place: torch.device) -> list[Round]:
        torch.manual_seed(0)
        model = torch.nn.Linear(6, 3).double()
        given = {
            "rounds": 2,
            "rng_seed": 3,
            "privacy": Privacy(**keys),
            "engine": ENGINES[engine](place, torch.float64),
        }
        clients = options["clients"]
        return list(coterie.federate(coterie.fedavg(lr=0.1, batch_size=5), model, clients, num_classes=3, **given))

    assert distance(all_weights(ends(CPU)[-1]), host(all_weights(ends(device)[-1]))) < 1e-6


@every_engine
@pytest.mark.parametrize("rule", RULES, ids=lambda rule: rule[0])
def test_a_robust_rule(rule: tuple[str, dict[str, Any]], engine: str, device: torch.device) -> None:
    name, options = rule
    agree(RECIPES["fedavg"], engine, device, aggregation=aggregation(name, **options), faults=None, cohort=None)


@every_engine
@pytest.mark.parametrize("name", ["sign_flip", "alie", "ipm", "large_values", "gaussian", "label_flip", "mimic"])
def test_an_attack(name: str, engine: str, device: torch.device) -> None:
    agree(RECIPES["fedavg"], engine, device, attack=attack(name, 1), faults=None, cohort=None, num_classes=3)


@every_engine
def test_every_probe(engine: str, device: torch.device) -> None:
    agree(RECIPES["scaffold"], engine, device, probe=Probe(list(PROBES)), test=seed_set(40), faults=None, cohort=None)


def test_augmented_images(device: torch.device) -> None:
    """One client after another: PyTorch ends the process where a batched convolution meets a device like this one."""
    agree(RECIPES["fedavg"], "sequential", device, model="convolutional", augment=augmentation("crop_flip"))


@every_engine
def test_traced_steps(engine: str, device: torch.device, monkeypatch: pytest.MonkeyPatch) -> None:
    make_program("traced", monkeypatch)
    make = ENGINES[engine]
    ends = [run(RECIPES["scaffold"], make(place, torch.float64, compile=True)) for place in (CPU, device)]
    assert distance(all_weights(ends[0][-1]), host(all_weights(ends[1][-1]))) < 1e-10


@every_engine
def test_examples_that_lie_there(engine: str, device: torch.device) -> None:
    make = ENGINES[engine]
    moved = {c: coterie.Examples(*(x.to(device) for x in e.tensors())) for c, e in ragged().items()}
    here = run(RECIPES["fedavg"], make(CPU, torch.float64))
    there = run(RECIPES["fedavg"], make(device, torch.float64), clients=moved)
    assert distance(all_weights(here[-1]), host(all_weights(there[-1]))) < 1e-12
