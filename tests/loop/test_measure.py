"""What a round is judged by, for one model and for a model of each client's own, against numbers worked out by hand."""

from collections.abc import Mapping

import pytest
import torch
from torch import nn

import coterie
from coterie import Examples, Plan
from coterie.loop.measure import measure_round
from coterie.loop.store import Store

X = torch.eye(2)[[0, 0, 0, 1]]
TEST = Examples(X, torch.tensor([0, 0, 1, 1]))
"""A model that names the place of the 1 is right in 3 of 4, on class 0 always and on class 1 half of the time; one that
names the other place is right in 1 of 4: never on class 0, half of the time on class 1."""
SAME, OTHER = torch.eye(2), torch.eye(2).flip(0)
CLIENTS = {
    "a": Examples(torch.zeros(4, 2), torch.tensor([0, 0, 0, 1])),
    "b": Examples(torch.zeros(2, 2), torch.tensor([1, 1])),
    "c": Examples(torch.zeros(2, 2), torch.tensor([0, 1])),
}


def linear(weight: torch.Tensor) -> nn.Module:
    model = nn.Linear(2, 2, bias=False)
    model.load_state_dict({"weight": weight})
    return model


def one_model(**options: object) -> dict[str, float | None]:
    plan = coterie.plan(coterie.fedavg(lr=0.1), linear(SAME), CLIENTS, rounds=1, **options)
    state = plan.algorithm.server.initial_state(plan.initial["model"], plan.federation())
    return measure_round(plan, 1, state, Store())


def own_models(weights: Mapping[str, torch.Tensor], **options: object) -> dict[str, float | None]:
    plan: Plan = coterie.plan(coterie.independent(lr=0.1), linear(SAME), CLIENTS, rounds=1, **options)
    states = {
        client: {"algorithm": {"params": {"weight": w}, "buffers": {}}, "up": {}} for client, w in weights.items()
    }
    return measure_round(plan, 1, {}, Store().after(1, states))


def test_nothing_is_measured_without_test_data() -> None:
    assert one_model() == {"test_loss": None, "test_accuracy": None}


def test_one_model_on_the_test_data_of_all() -> None:
    found = one_model(test=TEST)
    assert found["test_accuracy"] == 0.75
    assert set(found) == {"test_loss", "test_accuracy"}


def test_one_model_on_each_client_s_classes() -> None:
    """Shares (3/4, 1/4), (0, 1), (1/2, 1/2) of accuracies (1, 1/2): 7/8, 1/2, 3/4, whose mean is 17/24."""
    found = one_model(test=TEST, evaluate_clients=True)
    assert found["own_test_accuracy"] == pytest.approx(17 / 24)
    assert found["own_test_accuracy_worst_tenth"] == 0.5


def test_one_model_on_each_client_s_own_test_data() -> None:
    """Right in 2 of 2 and in 0 of 1; "c" has no test data, and is left out."""
    own = {
        "a": TEST.take(torch.tensor([0, 1])),
        "b": TEST.take(torch.tensor([2])),
        "c": TEST.take(torch.tensor([]).long()),
    }
    for given in (own, {client: own[client] for client in "ab"}):
        found = one_model(test=TEST, own_test=given, evaluate_clients=True)
        assert (found["own_test_accuracy"], found["own_test_accuracy_worst_tenth"]) == (0.5, 0)
        assert found["test_accuracy"] == 0.75


def test_each_client_s_own_test_data_alone() -> None:
    """Where there is no test set of all, as among hospitals that share nothing."""
    found = one_model(own_test={"a": TEST.take(torch.tensor([0, 2]))}, evaluate_clients=True)
    assert found == {
        "test_loss": None,
        "test_accuracy": None,
        "own_test_accuracy": 0.5,
        "own_test_accuracy_worst_tenth": 0.5,
    }


def test_own_models_are_judged_by_the_mean_over_clients() -> None:
    """ "a" and "c" name the right place and "b" the other: (3/4 + 1/4 + 3/4) / 3 on all test data. On their own classes
    they have 7/8, 1/2 and 3/4."""
    found = own_models({"a": SAME, "b": OTHER, "c": SAME}, test=TEST)
    assert found["test_accuracy"] == pytest.approx(1.75 / 3)
    assert found["own_test_accuracy"] == pytest.approx(17 / 24)
    assert found["own_test_accuracy_worst_tenth"] == 0.5


def test_own_models_on_own_test_data() -> None:
    """Two examples of place 0 and label 0: right for "a", wrong for "b"; a client that never took part has the initial
    model, which is right."""
    own = {client: TEST.take(torch.tensor([0, 1])) for client in CLIENTS}
    for test in (TEST, None):
        found = own_models({"a": SAME, "b": OTHER}, test=test, own_test=own)
        assert found["own_test_accuracy"] == pytest.approx(2 / 3)
        assert found["own_test_accuracy_worst_tenth"] == 0


def test_classes_that_are_not_in_the_test_data_do_not_break_the_measure() -> None:
    """ "a" holds a class 2 that no test example has: its own accuracy is that on the rest, and "b", which holds nothing
    else, is left out."""
    clients = {
        "a": Examples(torch.zeros(4, 2), torch.tensor([0, 0, 0, 2])),
        "b": Examples(torch.zeros(1, 2), torch.tensor([2])),
    }
    model = nn.Linear(2, 3, bias=False)
    model.load_state_dict({"weight": torch.cat([SAME, torch.zeros(1, 2)])})
    plan = coterie.plan(coterie.fedavg(lr=0.1), model, clients, rounds=1, test=TEST, evaluate_clients=True)
    state = plan.algorithm.server.initial_state(plan.initial["model"], plan.federation())
    assert measure_round(plan, 1, state, Store())["own_test_accuracy"] == 1.0


def test_nobody_who_can_be_measured() -> None:
    found = one_model(test=TEST, own_test={}, evaluate_clients=True)
    assert found["own_test_accuracy"] is None
    assert found["own_test_accuracy_worst_tenth"] is None


def test_every_second_round_and_the_last() -> None:
    rounds = coterie.federate(coterie.fedavg(lr=0.1), linear(SAME), CLIENTS, rounds=5, test=TEST, evaluate_every=2)
    assert [r.round for r in rounds if r.test_accuracy is not None] == [2, 4, 5]


def test_measuring_changes_nothing() -> None:
    with_tests = coterie.federate(coterie.independent(lr=0.1), linear(SAME), CLIENTS, rounds=3, test=TEST)
    without = coterie.federate(coterie.independent(lr=0.1), linear(SAME), CLIENTS, rounds=3)
    ends = [list(rounds)[-1].weights("b")["weight"] for rounds in (with_tests, without)]
    assert torch.equal(*ends)
