"""The plans between silos are those of the simulation: rows, order, counts and weights, bit for bit."""

import os
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from coterie.core import tree
from coterie.core.batching import num_steps
from coterie.core.examples import Examples, pool_examples, sizes
from coterie.experiment.build_experiment import Experiment, build_experiment
from coterie.experiment.silos.deal_to_silos import Dealing, deal_to_silos
from coterie.track.clients_json import describe_clients
from tests.experiment.silos.exchange import MACHINE, Ends, exchange, settings_of

REAL = Path(os.environ.get("COTERIE_DATA", "/nowhere"))
NAMES = ["north", "south", "west", "east", "centre", "hill", "coast", "island"]


def table_file(folder: Path) -> Path:
    """A table of three wards with gaps, a coded column, and classes by name; one ward lacks a class and a category."""
    rng = np.random.default_rng(0)
    lines = ["ward,age,kind,dose,answer"]
    for k in range(90):
        ward = ["b", "a", "c"][k % 3]
        kind = rng.choice(["x", "y"] if ward == "a" else ["x", "y", "z"])
        age = "" if ward != "c" and k % 4 == 0 else f"{rng.normal(50, 9):.1f}"
        answer = "no" if ward == "b" and k % 6 else rng.choice(["no", "yes"])
        lines.append(f"{ward},{age},{kind},{rng.normal():.3f},{answer}")
    path = folder / "table.csv"
    path.write_text("\n".join(lines))
    return path


def text_file(folder: Path) -> Path:
    """Windows of tokens, and the token after each; some count for nothing."""
    rng = np.random.default_rng(1)
    x, y = rng.integers(0, 7, (60, 5)), rng.integers(0, 7, (60, 5))
    y[::9, -2:] = -100
    path = folder / "text.npz"
    np.savez(path, x=x, y=y, role=np.array(["king", "fool"])[np.arange(60) % 2])
    return path


def digits(**how: Any) -> dict[str, Any]:
    return {"data": {"source": "digits", "num_clients": 6, "examples_per_client": 60, **how}}


def experiments(folder: Path) -> dict[str, dict[str, Any]]:
    """The tables of several experiments, by name."""
    text = {"source": "npz", "path": str(text_file(folder)), "client_column": "role"}
    return {
        "shards": digits(partition="shards"),
        "dirichlet": digits(partition="dirichlet", alpha=0.5, examples_per_client=90),
        "pictures": digits(partition="iid", standardize="federated"),
        "known": digits(partition="iid", standardize={"mean": [0.3], "deviation": [0.2]}),
        "table": {
            "data": {
                "source": "csv",
                "path": str(table_file(folder)),
                "label_column": "answer",
                "client_column": "ward",
            }
        },
        "gaps": {
            "data": {
                "source": "csv",
                "path": str(table_file(folder)),
                "label_column": "answer",
                "client_column": "ward",
                "standardize": "none",
            }
        },
        "local": {
            "data": {
                "source": "csv",
                "path": str(table_file(folder)),
                "label_column": "answer",
                "client_column": "ward",
                "standardize": "local",
            }
        },
        "text": {"data": text, "model": {"name": "char_lstm", "hidden": 8}},
        "rotated": {"data": {"source": "rotated", "of": "digits", "angles": [0, 15, 30, 105]}},
        "synthetic": {"data": {"source": "synthetic", "num_clients": 12, "num_features": 4}},
        "hospitals": {"data": {"source": "heart_disease"}},
    }


def both(folder: Path, tables: dict[str, Any], number: int | None) -> tuple[Experiment, Ends, Dealing]:
    """The simulation, and both ends among so many silos; by default one for each client."""
    settings = settings_of(folder, **tables)
    simulation = build_experiment(settings, MACHINE)
    clients = len(simulation.plan.ids)
    silos = [f"silo{k}" for k in range(number or clients)]
    dealing = deal_to_silos(settings, silos, folder / "dealt")
    return simulation, exchange(settings, dealing.files), dealing


def assert_same_tensors(one: Examples, other: Examples) -> None:
    for a, b in zip(one.tensors(), other.tensors(), strict=True):
        assert (a is None) == (b is None)
        assert a is None or (a.dtype == b.dtype and torch.equal(a, b))


CASES = [
    "shards",
    "dirichlet",
    "pictures",
    "known",
    "table",
    "gaps",
    "local",
    "text",
    "rotated",
    "synthetic",
    "hospitals",
]


@pytest.mark.parametrize(
    ("name", "number"), [*((name, None) for name in CASES), ("shards", 4), ("table", 1), ("text", 1)]
)
def test_the_plans_are_those_of_the_simulation(tmp_path: Path, name: str, number: int | None) -> None:
    if name == "hospitals" and not (REAL / "heart_disease").is_dir():
        pytest.skip("the data are not here")
    simulation, ends, dealing = both(tmp_path, experiments(tmp_path)[name], number)
    plan, coordinator = simulation.plan, ends.coordinator.plan
    assert list(coordinator.ids) == list(plan.ids) == list(dealing.hosts)
    assert coordinator.can_count
    assert sizes(coordinator.clients, coordinator.ids) == sizes(plan.clients, plan.ids)
    with pytest.raises(LookupError, match="at its silo"):
        coordinator.clients[plan.ids[0]]
    assert describe_clients(ends.coordinator.clients) == describe_clients(dict(simulation.clients))
    assert coordinator.evaluation.test is None
    first = next(iter(plan.algorithm.client.streams.values()))
    for silo, experiment in ends.silos.items():
        own = experiment.plan
        assert set(own.ids) == {client for client, host in dealing.hosts.items() if host == silo}
        for weights in (own.initial, coordinator.initial):
            assert tree.structure(weights) == tree.structure(plan.initial)
            assert all(torch.equal(a, b) for a, b in zip(tree.leaves(weights), tree.leaves(plan.initial), strict=True))
        for client in own.ids:
            assert_same_tensors(own.clients[client], plan.clients[client])
            assert num_steps(first, len(own.clients[client])) == num_steps(first, len(plan.clients[client]))
            if plan.evaluation.own is not None:
                assert own.evaluation.own is not None
                assert_same_tensors(own.evaluation.own[client], plan.evaluation.own[client])
        assert (own.evaluation.own is None) == (plan.evaluation.own is None)
        task, simulated = (next(iter(p.tasks.values())) for p in (own, plan))
        assert task.num_classes == simulated.num_classes
        assert task.metrics.keys() == simulated.metrics.keys()
    assert ends.coordinator.inputs.to_record() == simulation.inputs.to_record()
    assert ends.coordinator.bytes_once == simulation.bytes_once
    tests = [e.plan.evaluation.test for e in ends.silos.values()]
    assert_same_rows(pool_examples([t for t in tests if t is not None]), plan.evaluation.test)


def assert_same_rows(one: Examples, other: Examples | None) -> None:
    """Both hold the same rows, in any order."""
    assert other is not None
    found = []
    for examples in (one, other):
        x, y = examples.tensors()
        assert y is not None
        rows = [
            (tuple(a.flatten().tolist()), tuple(np.atleast_1d(b).tolist())) for a, b in zip(x, y.numpy(), strict=True)
        ]
        found.append(sorted(rows))
    assert found[0] == found[1]


def test_silos_add_the_noise_that_the_coordinator_chose_for_single_examples(tmp_path: Path) -> None:
    """Whose clients need less of it add as much, so every silo's draws are a simulation's but for the secret."""
    privacy = {"unit": "example", "clip_norm": 0.5, "epsilon": 3.0, "delta": 1e-3}
    tables = digits(partition="dirichlet", alpha=0.5, examples_per_client=90, standardize="none")
    simulation, ends, _ = both(tmp_path, tables | {"privacy": privacy}, None)
    expected = simulation.plan.example_privacy
    assert expected is not None
    assert ends.coordinator.plan.example_privacy == expected
    for experiment in ends.silos.values():
        assert experiment.plan.example_privacy == expected
        assert experiment.plan.secret != simulation.plan.secret
