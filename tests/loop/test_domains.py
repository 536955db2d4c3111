"""Every model on every client's own test data, worked out by hand."""

import pytest
import torch
from torch import nn

import coterie
from coterie import Examples, Recipe
from coterie.loop import domains
from coterie.loop.measure import measure_round
from coterie.loop.store import Store
from tests.federations import apart

TEST = Examples(torch.eye(2)[[0, 0, 0, 1]], torch.tensor([0, 0, 1, 1]))
OWN = {"a": TEST.take(torch.tensor([0, 1, 2])), "b": TEST.take(torch.tensor([3])), "c": TEST.take(torch.tensor([2, 3]))}
CLIENTS = {name: Examples(torch.eye(2), torch.tensor([0, 1])) for name in OWN}
SAME, OTHER = torch.eye(2), torch.eye(2).flip(0)
RIGHT = {"same": [2 / 3, 1.0, 0.5], "other": [1 / 3, 0.0, 0.5]}
"""A model that names the place of the 1 is right about examples 0, 1 and 3; one that names the other, about 2 alone."""


def found(recipe: Recipe, weights: list[torch.Tensor], clients: dict[str, Examples] = CLIENTS, **options: object):
    model = nn.Linear(2, 2, bias=False)
    model.load_state_dict({"weight": weights[0]})
    plan = coterie.plan(recipe, model, clients, rounds=1, **{"test": TEST, "own_test": OWN} | options)
    states = {
        client: {"algorithm": {"params": {"weight": w}, "buffers": {}}, "up": {}}
        for client, w in zip(plan.ids, weights, strict=False)
    }
    one = not plan.algorithm.traits.own_models and not plan.algorithm.traits.pooled
    state = plan.algorithm.server.initial_state(plan.initial["model"], plan.federation()) if one else {}
    return measure_round(plan, 1, state, Store() if one else Store().after(1, states))


@pytest.mark.parametrize("own", [OWN, apart(OWN)], ids=["parts of the test data", "data of their own"])
@pytest.mark.parametrize("test", [TEST, None], ids=["with", "without test data of all"])
def test_every_client_s_model_on_every_client_s_data(own, test):
    """The mean counts every domain alike: (2/3 + 1 + 1/2) / 3 twice and (1/3 + 0 + 1/2) / 3 once. The worst of each
    model: 1/2, 0, 1/2."""
    result = found(coterie.independent(lr=0.1), [SAME, OTHER, SAME], test=test, own_test=own)
    assert [pytest.approx(row) for row in result["accuracy_matrix"]] == [RIGHT[n] for n in ("same", "other", "same")]
    assert result["domain_test_accuracy"] == pytest.approx((2 * 13 / 18 + 5 / 18) / 3)
    assert result["domain_test_accuracy_worst"] == pytest.approx(1 / 3)
    assert result["own_test_accuracy"] == pytest.approx((2 / 3 + 0 + 1 / 2) / 3)


def test_one_model_is_one_row():
    result = found(coterie.fedavg(lr=0.1), [OTHER], evaluate_clients=True)
    assert result["accuracy_matrix"] == [pytest.approx(RIGHT["other"])]
    assert "accuracy_matrix" not in found(coterie.fedavg(lr=0.1), [OTHER])


def test_the_pooled_model_is_judged_on_every_domain():
    result = found(coterie.centralized(lr=0.1), [SAME], own_test={"pooled": TEST, **OWN})
    assert result["accuracy_matrix"] == [pytest.approx(RIGHT["same"])]
    assert result["domain_test_accuracy_worst"] == 0.5


def test_a_client_without_test_data_is_a_gap():
    result = found(coterie.independent(lr=0.1), [SAME, SAME, OTHER], own_test={"a": OWN["a"], "c": OWN["c"]})
    assert result["accuracy_matrix"][2] == [pytest.approx(1 / 3), None, 0.5]
    assert "accuracy_matrix" not in found(coterie.independent(lr=0.1), [SAME], own_test={"a": OWN["a"]})


def test_many_clients_have_no_matrix(monkeypatch):
    monkeypatch.setattr(domains, "MAX_DOMAINS", 2)
    result = found(coterie.independent(lr=0.1), [SAME, SAME, SAME])
    assert "accuracy_matrix" not in result
    assert result["own_test_accuracy"] == pytest.approx(13 / 18)


def test_it_stands_in_the_record_of_a_round():
    rounds = coterie.federate(
        coterie.independent(lr=0.1), nn.Linear(2, 2), CLIENTS, rounds=2, test=TEST, own_test=OWN, evaluate_every=2
    )
    first, last = [r.record() for r in rounds]
    assert "accuracy_matrix" not in first
    assert [len(row) for row in last["accuracy_matrix"]] == [3, 3, 3]
