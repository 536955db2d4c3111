"""Every measure on each client's own test data, worked out by hand."""

from typing import Any

import pytest
import torch
from torch import nn

import coterie
from coterie import Examples
from coterie.algorithms import centralized

OWN = {
    "north": Examples(torch.tensor([[0.0], [1.0], [2.0], [3.0]]), torch.tensor([0, 1, 0, 1])),
    "south": Examples(torch.tensor([[1.0], [2.0]]), torch.tensor([1, 1])),
}
"""A model that passes its input on orders three of the four pairs of north rightly, and says 1 of all but the first
example, which is wrong for one. South has one class alone."""
TEST = Examples(torch.cat([e.x for e in OWN.values()]), torch.cat([e.y for e in OWN.values() if e.y is not None]))


def record(recipe: Any, own: dict[str, Examples] = OWN, **options: Any) -> dict[str, Any]:
    model = nn.Linear(1, 1, bias=False)
    nn.init.ones_(model.weight)
    given: dict[str, Any] = {"task": "binary", "metrics": ["auroc"], "evaluate_clients": True} | options
    rounds = coterie.federate(recipe, model, own, rounds=1, test=TEST, own_test=own, **given)
    return list(rounds)[-1].record()


@pytest.mark.parametrize("recipe", [coterie.fedavg(lr=1e-6), centralized(lr=1e-6)], ids=["fedavg", "centralized"])
def test_an_area_at_each_hospital_and_why_one_has_none(recipe: Any) -> None:
    found = record(recipe)
    north, south = found["own_tests"]["north"], found["own_tests"]["south"]
    assert (north["examples"], north["test_auroc"], north["test_accuracy"]) == (4, 0.75, 0.75)
    assert north["intervals"]["test_auroc"] == pytest.approx([0.0694, 0.9918], abs=1e-4)
    assert (south["examples"], south["test_auroc"]) == (2, None)
    assert south["undefined"] == {"test_auroc": "it needs two or more examples of each class"}
    assert found["own_test_auroc"] == 0.75


def test_models_of_the_clients_own_are_measured_each_on_its_own_data() -> None:
    found = record(coterie.independent(lr=1e-6))
    assert found["own_tests"]["north"]["test_auroc"] == 0.75
    assert found["own_tests"]["south"]["test_auroc"] is None


def test_nothing_more_than_before_unless_asked_for() -> None:
    assert "own_tests" not in record(coterie.fedavg(lr=1e-6), evaluate_clients=False)
    assert "own_tests" not in record(coterie.fedavg(lr=1e-6), metrics=None)


def test_of_many_clients_only_the_mean_is_on_record() -> None:
    found = record(coterie.fedavg(lr=1e-6), {f"{k}": OWN["north"] for k in range(33)})
    assert found["own_test_auroc"] == 0.75
    assert "own_tests" not in found
