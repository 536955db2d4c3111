"""Probes of rounds: two quadratics by hand, and what a probe must leave unchanged."""

import gc
import itertools
import weakref
from collections.abc import Mapping
from typing import Any

import pytest
import torch
from torch import Tensor

import coterie
from coterie import Examples, Mistake, Recipe, Round
from coterie.core import tree
from coterie.engines.sequential import Sequential
from coterie.engines.vectorised import Vectorised
from coterie.loop.checkpoint import Checkpoints
from coterie.probes import PROBES, Probe
from tests.algorithms.quadratics import TWO, Point, loss
from tests.common.recipes import RECIPES
from tests.federations import dense, distance, ragged, seed_set

TEST = Examples(torch.zeros(1, 1), torch.tensor([[1.0, 0.1]], dtype=torch.float64))
"""(w - 0.1)^2 / 2."""


def at_least_a_fifth(outputs: Tensor, y: Tensor) -> tuple[Tensor, Tensor]:
    """An accuracy: right where w >= 0.2."""
    return (outputs[:, 0] >= 0.2).double(), torch.ones(len(outputs))


def probe_quadratics(names: list[str], lr: float = 0.1, rounds: int = 1) -> list[Mapping[str, Any]]:
    """Run FedSGD on two clients, a = (1, 2), b = (4, -1), p = (3/4, 1/4), from w = 0; return each round's measures."""
    found = coterie.federate(
        coterie.fedsgd(lr=lr), Point(0.0), TWO, rounds=rounds, loss=loss, metrics={"accuracy": at_least_a_fifth},
        test=TEST, engine=Sequential(dtype=torch.float64), probe=Probe(names),
    )  # fmt: skip
    prefix = "probe."
    return [{k.removeprefix(prefix): v for k, v in r.measures.items() if k.startswith(prefix)} for r in found]


def test_two_quadratics_by_hand() -> None:
    """w_1 = 0.1 * 4 = 0.4 and w_2 = -0.1 * 2 = -0.2, so D = (-0.4, 0.2), whose mean is -0.25: w = 0.25.
    dispersion 0.75 * 0.15^2 + 0.25 * 0.45^2 = 0.0675; distance 0.75 * 0.4 + 0.25 * 0.2; cosine 0.75 - 0.25.
    diversity (0.16 + 0.04) / 0.2^2. Accuracy: 0 before, 1 and 0 at the clients, 1 after.
    """
    (found,) = probe_quadratics(["drift", "diversity", "gain", "travelled", "curvature"])
    assert found == pytest.approx(
        {
            "dispersion": 0.0675,
            "distance": 0.35,
            "cosine": 0.5,
            "diversity": 5.0,
            "gain": 0.25,
            "local_change": 0.75,
            "local_accuracy": 0.75,
            "travelled": 0.25,
            "curvature": 1.0,  # of (w - 0.1)^2 / 2
        }
    )


def test_the_best_weighting_of_two_quadratics() -> None:
    """0.4 lambda - 0.2 (1 - lambda) = 0.1 where lambda = 1/2; at p = 3/4 the loss is (0.25 - 0.1)^2 / 2."""
    (found,) = probe_quadratics(["weights"])
    assert found["mean_loss"] == pytest.approx(0.15**2 / 2)
    assert found["best_loss"] == pytest.approx(0, abs=1e-6)
    assert found["best_weights"] == pytest.approx({"0": 0.5, "1": 0.5}, abs=1e-3)
    assert found["weight_shift"] == pytest.approx(0.25, abs=1e-3)


def test_direction_is_negative_where_rounds_swing_back_and_forth() -> None:
    """The objective bends by 0.75 * 1 + 0.25 * 2 = 1.25: every step overshoots at lr 1.2, and none at 0.1."""
    assert [r["direction"] for r in probe_quadratics(["direction"], lr=1.2, rounds=3)] == [None, pytest.approx(-1), -1]
    assert [r["direction"] for r in probe_quadratics(["direction"], lr=0.1, rounds=3)] == [None, pytest.approx(1), 1]


ALL = list(PROBES)
OF_UPDATES = ["drift", "diversity", "direction"]
AVERAGING = {
    name: recipe
    for name, recipe in RECIPES.items()
    if not name.startswith(("fedh2l", "fedmd", "fedssl", "centralized", "independent", "fedbn"))
}


def run(recipe: Recipe, **options: Any) -> list[Round]:
    options = {"engine": Sequential(dtype=torch.float64), "rounds": 3, "cohort": 0.7} | options
    given = {"rng_seed": 3, "test": seed_set(), "seed_set": seed_set(), "num_classes": 3} | options
    return list(coterie.federate(recipe, dense(), ragged(), **given))


def probe_measures(rounds: list[Round]) -> list[Mapping[str, Any]]:
    return [{k: v for k, v in r.measures.items() if k.startswith("probe.")} for r in rounds]


def state(last: Round) -> dict[str, Tensor]:
    return tree.flatten({name: part for name, part in last.state.items() if name != "probe"})


@pytest.mark.parametrize("name", AVERAGING)
def test_a_probe_does_not_change_the_training(name: str) -> None:
    """This holds for all algorithms that average weights. FBN's first rounds send none; other probes still run."""
    plain, watched = run(RECIPES[name]), run(RECIPES[name], probe=Probe(ALL, every=3))  # the second has none
    assert distance(state(plain[-1]), state(watched[-1])) == 0
    for a, b in zip(plain, watched, strict=True):
        assert {k: v for k, v in b.measures.items() if not k.startswith("probe.")} == a.measures
    keys = set(probe_measures(watched)[-1])
    assert {"probe.gain", "probe.dispersion", "probe.direction", "probe.best_loss", "probe.curvature"} <= keys


def test_the_two_parts_of_a_round_add_up() -> None:
    """gain + local_change is the change of the test accuracy, where the probe uses all test examples."""
    rounds = run(RECIPES["fedavg"], probe=Probe(["gain"]))
    for before, now in itertools.pairwise(rounds):
        moved = now.measures["probe.gain"] + now.measures["probe.local_change"]
        assert moved == pytest.approx(now.test_accuracy - before.test_accuracy)
        assert now.measures["probe.gain"] == pytest.approx(now.test_accuracy - now.measures["probe.local_accuracy"])


def test_the_loss_of_the_mean_is_the_loss_of_the_server() -> None:
    """FedAvg's server has the mean of its clients' models, with BatchNorm's statistics."""
    for round in run(RECIPES["fedavg"], probe=Probe(["weights"])):
        assert round.measures["probe.mean_loss"] == pytest.approx(round.test_loss, abs=1e-9)
        assert round.measures["probe.best_loss"] <= round.measures["probe.mean_loss"]
        assert sum(round.measures["probe.best_weights"].values()) == pytest.approx(1)


def test_only_rounds_that_are_due_are_probed() -> None:
    found = probe_measures(run(RECIPES["fedavg"], rounds=8, probe=Probe(["drift", "travelled"], every=3)))
    assert [k for k, measures in enumerate(found, 1) if measures] == [1, 3, 6, 8]
    assert all(set(m) == {"probe.dispersion", "probe.distance", "probe.cosine", "probe.travelled"} for m in found if m)


def test_updates_are_freed_when_the_round_is_over() -> None:
    held: list[weakref.ref[Tensor]] = []

    class Watch(Probe):
        def __call__(self, round: Round) -> dict[str, Any]:
            held.extend(weakref.ref(leaf) for update in round.updates.values() for leaf in tree.leaves(update))
            return {"seen": len(round.updates)}

    clients = coterie.federate(RECIPES["fedavg"], dense(), ragged(), rounds=2, probe=Watch([], every=2))
    for round in clients:
        gc.collect()
        assert round.updates is None
        assert round.measures["seen"] == 6
        assert not any(leaf() is not None for leaf in held)
    (kept,) = run(RECIPES["fedavg"], rounds=1, probe=Probe(["drift"]), keep_updates=True)
    assert kept.updates is not None
    assert list(kept.updates) == list(kept.client_weights)


def test_a_resumed_run_measures_what_an_unbroken_one_does(tmp_path) -> None:
    """Bit for bit, also the measures that compare with the round before."""
    probe = Probe(ALL)
    whole = run(RECIPES["scaffold"], rounds=4, probe=probe)
    Checkpoints(tmp_path).save(run(RECIPES["scaffold"], rounds=2, probe=probe)[-1])
    rest = run(RECIPES["scaffold"], rounds=4, probe=probe, resume=Checkpoints(tmp_path).load())
    assert probe_measures(whole)[2:] == probe_measures(rest)
    assert probe_measures(whole)[2]["probe.direction"] is not None


def test_engines_agree_on_the_measures() -> None:
    engines = Sequential(dtype=torch.float64), Vectorised(dtype=torch.float64)
    one, many = (probe_measures(run(RECIPES["fedavg"], probe=Probe(ALL), engine=engine)) for engine in engines)
    for a, b in zip(one, many, strict=True):
        assert a.keys() == b.keys()
        for name, value in a.items():
            assert b[name] == (None if value is None else pytest.approx(value, rel=1e-6))


def test_a_round_that_reached_nobody_has_no_differences() -> None:
    nobody = coterie.Faults(drop=1.0)
    (found,) = probe_measures(run(RECIPES["fedavg"], rounds=1, faults=nobody, probe=Probe(ALL)))
    assert set(found) == {"probe.travelled", "probe.curvature"}
    assert found["probe.travelled"] == 0


@pytest.mark.parametrize("name", ["fedbn", "fbn, the paper's", "fedssl", "fedssl, heads at the client"])
def test_updates_can_be_probed_where_clients_keep_a_part_of_the_model(name: str) -> None:
    (first, last) = probe_measures(run(RECIPES[name], rounds=2, probe=Probe(OF_UPDATES)))
    assert first["probe.diversity"] is not None
    assert last["probe.direction"] is not None


@pytest.mark.parametrize(
    ("recipe", "probe", "options", "sentence"),
    [
        ("fedavg", "drfit", {}, '^names = "drfit": did you mean "drift"\\? It must be one of drift, diversity'),
        ("fedh2l", "drift", {}, 'probe.names = "drift": the clients of this algorithm send no differences of weights'),
        ("independent", "direction", {}, "send no differences of weights"),
        ("centralized", "travelled", {}, "this algorithm has no single server model"),
        ("fedbn", "gain", {}, 'probe.names = "gain": this algorithm has no single server model'),
        ("fedavg", "curvature", {"test": None}, 'probe.names = "curvature": there are no test examples for it'),
        ("fedssl", "curvature", {}, "or the algorithm trains no model that predicts their labels"),
        ("fedavg", "gain", {"metrics": {}}, 'probe.names = "gain": accuracy is not among the metrics'),
    ],
)
def test_an_impossible_probe_is_refused(recipe: str, probe: str, options: dict[str, Any], sentence: str) -> None:
    with pytest.raises(Mistake, match=sentence):
        run(RECIPES[recipe], probe=Probe([probe]), **options)


def test_numbers_below_one_are_refused() -> None:
    with pytest.raises(Mistake, match=r"^every = 0: it must be 1 or more"):
        Probe(["drift"], every=0)
    with pytest.raises(Mistake, match=r"^examples = 0: it must be 1 or more"):
        Probe(["drift"], examples=0)


def test_a_subset_is_the_same_in_every_round_and_run() -> None:
    """With half of the test examples, losses differ from those of all examples, and agree between two runs."""
    few = [probe_measures(run(RECIPES["fedavg"], probe=Probe(["weights"], examples=5))) for _ in range(2)]
    assert few[0] == few[1]
    (first, *_) = run(RECIPES["fedavg"])
    assert few[0][0]["probe.mean_loss"] != pytest.approx(first.test_loss)
