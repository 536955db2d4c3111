"""A federation in which no update counts says why and what to do, and nothing that is not finite stays in it."""

import math
import re
import warnings
from types import MappingProxyType
from typing import Any

import pytest
import torch
from torch import nn

import coterie
from coterie import Examples, Faults, Mistake, Privacy, Recipe, Round
from coterie.aggregation.registry import aggregation
from coterie.algorithms.optimizers import sgd
from coterie.attacks.updates import large_values
from coterie.core import tree
from coterie.loop.attack import Attack
from coterie.loop.refusals import explain, failure
from coterie.pretrain.pretrained_weights import load_weights
from tests.common.recipes import RECIPES
from tests.federations import dense, distance, ragged, seed_set


def run(recipe: Recipe | None = None, rounds: int = 4, **options: Any) -> tuple[list[Round], list[str]]:
    """The rounds, and the warnings."""
    model = options.pop("model", None) or nn.Sequential(nn.Linear(6, 5), nn.ReLU(), nn.Linear(5, 3))
    clients = options.pop("clients", None) or ragged()
    recipe = recipe or coterie.fedavg(lr=0.1, batch_size=5)
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        found = list(coterie.federate(recipe, model, clients, rounds=rounds, **{"rng_seed": 1} | options))
    assert all(w.filename == __file__ for w in caught)
    return found, [str(w.message) for w in caught]


def test_a_run_that_trains_warns_of_nothing() -> None:
    assert run(test=ragged()["1"])[1] == []
    for name in ("centralized", "independent", "fedh2l", "fedbn"):
        found, said = run(RECIPES[name], model=dense(), seed_set=seed_set())
        assert said == []
        assert all(r.reached for r in found)


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"faults": Faults(drop=1.0)}, "dropped out (so for 18 of 18); lower .* (faults.drop)"),
        ({"faults": Faults(straggle=1.0)}, "missed the deadline (so for 18 of 18); lower .* (faults.straggle)"),
        ({"faults": Faults(corrupt=1.0)}, "lower the probability that a client sends garbage (faults.corrupt)"),
        ({"recipe": coterie.fedavg(lr=1e38, local_epochs=3)}, "not finite .*; lower the learning rate (lr)"),
        (
            {"recipe": coterie.fedavg(lr=1e4, server=sgd(3e38)), "rounds": 5},
            "the server's own params/0.weight would not be finite .*(server_lr)",
        ),
    ],
)
def test_three_rounds_without_an_update_are_warned_of_once(options: dict[str, Any], words: str) -> None:
    """They looked like rounds that train: an accuracy, and no word."""
    found, said = run(**{"rounds": 6} | options)
    assert len(said) == 1
    assert said[0].startswith("coterie: no client's update was accepted in rounds ")
    assert re.search(words.replace("(", r"\(").replace(")", r"\)"), said[0])
    assert any(r.reached == 0 for r in found)


def test_too_few_for_the_rule_is_a_reason() -> None:
    found, _ = run(aggregation=aggregation("krum", num_byzantine=1), faults=Faults(drop=0.8), rng_seed=5)
    few = [entry for r in found for entry in r.dropped if "updates arrived" in entry["why"]]
    assert "ask more clients in a round (cohort), or let the aggregation expect fewer" in explain(few, found[0].plan)


def test_gaps_in_the_data_are_named_as_the_reason() -> None:
    clients = ragged()
    for examples in clients.values():
        examples.x[:, 2] = math.nan
    _, (only,) = run(clients=MappingProxyType(clients))  # examples in a dict are looked at before the run
    assert only.endswith("the data of client 0 hold numbers that are not finite: fill or remove them before training")


def test_a_run_of_one_round_is_warned_of_at_its_end() -> None:
    _, (only,) = run(rounds=1, faults=Faults(drop=1.0))
    assert "was accepted in round 1, " in only


def test_outputs_that_are_not_finite_are_said_and_counted() -> None:
    model = nn.Linear(6, 3)
    nn.init.constant_(model.weight, math.nan)
    found, said = run(model=model, test=ragged()["1"], faults=Faults(drop=1.0))
    assert found[0].measures["test_outputs_not_finite"] == 23
    assert found[0].record()["test_outputs_not_finite"] == 23
    assert found[0].test_accuracy == 0
    assert "after round 1 the model's outputs for 23 test examples are not finite" in said[0]
    assert len(said) == 2


def test_a_run_failed_where_half_of_its_outputs_are_not_finite_at_the_end() -> None:
    """Its weights are finite, and overflow in the forward."""
    (last,) = run(coterie.fedavg(lr=3e37), 1, test=ragged()["1"])[0]
    records = [last.record()]
    assert last.reached
    assert all(x.isfinite().all() for x in last.weights().values())
    assert records[0]["test_outputs_not_finite"] == 22
    assert failure(records, last.plan) == (
        "22 of 23 outputs on the test data are not finite: lower the learning rate (lr) and run again"
    )
    assert failure([{**records[0], "test_outputs_not_finite": 11}], last.plan) is None


def test_under_a_guarantee_a_failure_names_no_client_and_tells_of_the_noise() -> None:
    """The sentence stands in summary.json, and nobody's data may decide what it says."""
    broken = {c: Examples(e.x * float("nan"), e.y, e.rows) for c, e in ragged().items()}
    for unit, end in (("client", "learnt from noise alone"), ("none", "ends with the weights that it began with")):
        bounded = {"unit": unit, "clip_norm": 1.0, "noise_multiplier": 1.0, "noise": "rng_seed", "delta": 1e-3}
        options = {"privacy": Privacy(**bounded)} if unit == "client" else {}
        found, _ = run(clients=MappingProxyType(broken), **options)
        said = failure([round.record() for round in found], found[-1].plan)
        assert said is not None
        assert end in said
        assert ("the data of client" in said) == (unit == "none")


def test_an_aggregate_that_overflows_changes_nothing() -> None:
    """Every update was finite, so the server accepted them all, and their mean was not."""
    attack = Attack(2, large_values(3e38))
    found, (said,) = run(attack=attack)
    assert all(r.reached == 0 for r in found)
    assert {entry["why"] for r in found for entry in r.dropped} == {
        "the aggregate is not finite in delta/params/0.weight"
    }
    assert distance(tree.flatten(found[-1].state), tree.flatten(found[0].before)) == 0
    assert "choose an aggregation that withstands attackers" in said


def test_a_client_state_that_overflows_is_refused_with_its_update() -> None:
    """SCAFFOLD's c_i is a difference divided by lr K, and can overflow where the difference does not."""
    huge = {c: Examples(e.x * 1e30, e.y, e.rows) for c, e in ragged().items()}
    found, _ = run(coterie.scaffold(lr=1e-9, batch_size=5), clients=huge)
    assert all(tree.is_finite(r.state) for r in found)
    assert all(tree.is_finite(r.plan.client_state(r.store, c)) for r in found for c in r.plan.ids)


@pytest.mark.parametrize("name", ["independent", "centralized", "fedbn", "fedmd", "fedh2l"])
def test_a_client_s_own_model_never_becomes_nan(name: str) -> None:
    """Its update may be fine, or empty: the model that stays at the client is looked at too."""
    recipe = {
        "independent": coterie.independent(lr=1e30, local_epochs=2),
        "centralized": coterie.centralized(lr=1e30, local_epochs=2),
        "fedbn": coterie.fedbn(lr=1e38, local_epochs=2),
        "fedmd": coterie.fedmd(lr=1e30, local_epochs=2),
        "fedh2l": coterie.fedh2l(lr=1e30, local_epochs=2),
    }[name]
    found, said = run(recipe, model=dense().float(), seed_set=seed_set(), test=ragged()["1"])
    for client in found[-1].plan.ids:
        assert tree.is_finite(found[-1].weights(client))
    assert any(r.dropped for r in found)
    assert any("holds numbers that are not finite" in entry["why"] for r in found for entry in r.dropped)
    assert said or found[-1].reached


def test_a_model_beyond_the_engine_s_type_of_number_is_refused_by_name() -> None:
    model = nn.Linear(6, 3).double()
    nn.init.constant_(model.bias, 1e300)
    with pytest.raises(Mistake, match=r"model: its bias holds numbers beyond the range of torch\.float32"):
        run(model=model)


def test_weights_are_checked_in_the_model_s_type_of_number() -> None:
    """1e300 is finite in a file of float64, and was loaded as infinity."""
    model = nn.Linear(2, 2)
    given = {"weight": torch.full((2, 2), 1e300, dtype=torch.float64), "bias": torch.zeros(2)}
    with pytest.raises(Mistake, match="values in weight that are not finite as float32"):
        load_weights(model, given, "the file")
    assert model.weight.isfinite().all()


def test_a_mask_in_a_file_of_weights_is_loaded() -> None:
    model = nn.Linear(2, 2)
    model.register_buffer("mask", torch.tensor([0.0, -math.inf]))
    load_weights(model, {name: x.clone() for name, x in model.state_dict().items()}, "the file")
