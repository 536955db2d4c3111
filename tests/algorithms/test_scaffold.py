"""SCAFFOLD: the control variates, and the optimum that they lead to."""

from __future__ import annotations

import itertools
from dataclasses import replace

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import coterie
from coterie import Faults, Mistake
from tests.algorithms.quadratics import MANY, clients, optimum, run, shares, w
from tests.federations import dense, distance, ragged


@pytest.mark.parametrize("objective", ["examples", "clients"])
@pytest.mark.parametrize("control", ["difference", "gradient"])
def test_the_first_round_of_equal_clients_is_fedavgs_bit_for_bit(objective, control):
    """All control variates begin at 0. Eight examples each: weights of 8 and of 1 scale without rounding."""
    alike = ragged(sizes=(8, 8, 8))
    options = {"lr": 0.1, "batch_size": 3, "local_epochs": 2}
    one, other = (
        list(coterie.federate(recipe, dense(), alike, rounds=1))[-1]
        for recipe in (coterie.fedavg(**options), coterie.scaffold(objective=objective, control=control, **options))
    )
    assert distance(one.weights(), other.weights()) == 0


def control(last, client):
    return last.store.get(client)["algorithm"]["control"]["w"].item()


def test_two_rounds_by_hand():
    """lr 1/2, two steps, option II; client 0 has (a, b) = (1, 4) and p = 3/4, client 1 has (2, -1) and p = 1/4.

    Round 1 from w = 0 is FedAvg's: gradients -4, -2 and 2, 0, so w_i = 3, -1 and w = 2; c_i = their means -3, 1 and
    c = -9/4 + 1/4 = -2.
    Round 2. Client 0 adds c - c_0 = 1: -2 + 1, w 5/2; -3/2 + 1, w 11/4. Client 1 adds -3: 6 - 3, w 1/2; 3 - 3, w 1/2.
    w = 33/16 + 1/8 = 35/16; c_i = -7/4, 9/2 and c = -21/16 + 9/8 = -3/16.
    """
    first, second = (run(coterie.scaffold(lr=0.5, local_steps=2), rounds=k)[-1] for k in (1, 2))
    assert (w(first), first.state["control"]["w"].item()) == (2.0, -2.0)
    assert (control(first, "0"), control(first, "1")) == (-3.0, 1.0)
    assert (w(second), second.state["control"]["w"].item()) == (35 / 16, -3 / 16)
    assert (control(second, "0"), control(second, "1")) == (-7 / 4, 9 / 2)


def test_two_rounds_of_option_one_by_hand():
    """As above with the gradient at w. Round 1: w = 2, c_i = -4, 2 and c = -3 + 1/2 = -5/2.

    Round 2. Client 0 adds 3/2: -2 + 3/2, w 9/4; -7/4 + 3/2, w 19/8. Client 1 adds -9/2: 6 - 9/2, w 5/4; 9/2 - 9/2,
    w 5/4. w = 57/32 + 10/32 = 67/32; c_i = -2, 6 and c = 0, for w was the optimum, 2.
    """
    recipe = coterie.scaffold(lr=0.5, local_steps=2, control="gradient")
    first, second = (run(recipe, rounds=k)[-1] for k in (1, 2))
    assert (w(first), first.state["control"]["w"].item()) == (2.0, -5 / 2)
    assert (control(first, "0"), control(first, "1")) == (-4.0, 2.0)
    assert (w(second), second.state["control"]["w"].item()) == (67 / 32, 0.0)
    assert (control(second, "0"), control(second, "1")) == (-2.0, 6.0)


@pytest.mark.parametrize("objective", ["examples", "clients"])
@pytest.mark.parametrize("option", ["difference", "gradient"])
def test_unequal_absent_and_lost_clients_still_reach_the_optimum(objective, option):
    """Batches of 2 give the clients 1 to 4 steps; 3 of 5 are asked, a fifth of those drop out."""
    recipe = coterie.scaffold(lr=0.1, batch_size=2, objective=objective, control=option)
    last = run(recipe, MANY, rounds=300, cohort=3, faults=Faults(drop=0.2))[-1]
    assert w(last) == pytest.approx(optimum(objective), abs=1e-9)
    assert abs(optimum("examples") - optimum("clients")) > 0.3


@pytest.mark.parametrize(("objective", "models"), [("clients", "examples"), ("examples", "one")])
@pytest.mark.parametrize("option", ["difference", "gradient"])
def test_where_the_two_weights_differ_those_of_the_control_variates_decide(objective, models, option):
    """Rounds rest where every w_i = w: there c_i = grad F_i(w), and c = sum_i p_i c_i = 0 for the p_i of c."""
    recipe = coterie.scaffold(lr=0.1, batch_size=2, objective=objective, control=option)

    def mixed(task):
        algorithm = recipe(task)
        return replace(
            algorithm,
            server=replace(
                algorithm.server,
                weighting={**algorithm.server.weighting, "delta": models},
            ),
        )

    last = run(mixed, MANY, rounds=300, cohort=3, faults=Faults(drop=0.2))[-1]
    assert w(last) == pytest.approx(optimum(objective), abs=1e-9)


@settings(max_examples=10, deadline=None)
@given(st.integers(0, 10**6), st.sampled_from(["examples", "clients"]), st.sampled_from(["difference", "gradient"]))
def test_the_servers_control_variate_is_the_mean_of_the_clients(rng_seed, objective, option):
    """c = sum_i p_i c_i, with c_i = 0 for who never took part, whoever was absent and whenever."""
    recipe = coterie.scaffold(lr=0.1, batch_size=2, objective=objective, control=option)
    last = run(recipe, MANY, rounds=6, cohort=2, faults=Faults(drop=0.4), rng_seed=rng_seed)[-1]
    mean = sum(p * control(last, str(i)) for i, p in enumerate(shares(objective)) if last.store.get(str(i)) is not None)
    assert last.state["control"]["w"].item() == pytest.approx(mean, abs=1e-12)


def test_option_one_diverges_where_steps_are_many_and_option_two_does_not():
    """Solved to the end, a client arrives where a_i (w_i - b_i) = c_i - c. With c_i = a_i (v - b_i) at the weights v
    one round before, the distance e to the optimum obeys e_{t+1} = (1 - mean(a) mean(1 / a)) e_{t-1}; a = 1/10, 1 make
    that factor 1 - 0.55 * 5.5 = -2.025."""
    two = clients([0.1, 1.0], [4.0, -1.0], [1, 1])
    optimum_of_two = (0.1 * 4 - 1) / 1.1

    def errors(option):
        recipe = coterie.scaffold(lr=1.0, local_steps=200, control=option)
        return [-optimum_of_two] + [w(last) - optimum_of_two for last in run(recipe, two, rounds=5)]

    e = errors("gradient")
    assert e[2:] == pytest.approx([-2.025 * before for before in e[:-2]], abs=1e-6)
    d = errors("difference")
    assert all(0 < after < before for before, after in itertools.pairwise(d[1:]))


def test_what_makes_no_sense_is_refused():
    with pytest.raises(Mistake, match=r'momentum = 0.9: it must be 0 with scaffold, unless control = "grad'):
        coterie.scaffold(lr=0.1, momentum=0.9)
    with pytest.raises(Mistake, match=r'objective = "all": it must be "examples" or "clients"'):
        coterie.scaffold(lr=0.1, objective="all")
    with pytest.raises(Mistake, match=r'control = "none": it must be "difference" or "gradient"'):
        coterie.scaffold(lr=0.1, control="none")
