"""FedDyn: the bent objectives, and the optimum where they meet."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import coterie
from coterie import Faults, Mistake
from tests.algorithms.quadratics import MANY, optimum, run, shares, w


def gradient(last, client):
    return last.store.get(client)["algorithm"]["gradient"]["w"].item()


def test_two_rounds_by_hand():
    """alpha = 1, lr 1/2, two steps; client 0 has (a, b) = (1, 4) and p = 3/4, client 1 has (2, -1) and p = 1/4.

    Round 1 from w = 0 is FedProx's: w_i = 2, -1/2. g_i = 0 - w_i = -2, 1/2; h = -3/2 + 1/8 = -11/8;
    w = 11/8 + 11/8 = 11/4.
    Round 2. Client 0: -5/4 + 2 + 0 = 3/4, w 19/8; -13/8 + 2 - 3/8 = 0, w 19/8. Client 1: 15/2 - 1/2 + 0 = 7, w -3/4;
    1/2 - 1/2 - 7/2, w 1. g_i = -2 + 3/8 = -13/8, 1/2 + 7/4 = 9/4; h = -39/32 + 18/32 = -21/32;
    w = 57/32 + 8/32 + 21/32 = 43/16.
    """
    recipe = coterie.feddyn(lr=0.5, local_steps=2, proximal_weight=1.0)
    first, second = (run(recipe, rounds=k)[-1] for k in (1, 2))
    assert (w(first), first.state["h"]["w"].item()) == (11 / 4, -11 / 8)
    assert (gradient(first, "0"), gradient(first, "1")) == (-2.0, 1 / 2)
    assert (w(second), second.state["h"]["w"].item()) == (43 / 16, -21 / 32)
    assert (gradient(second, "0"), gradient(second, "1")) == (-13 / 8, 9 / 4)


@pytest.mark.parametrize("objective", ["examples", "clients"])
def test_unequal_absent_and_lost_clients_still_reach_the_optimum(objective):
    """Batches of 2 give the clients 1 to 4 steps; 3 of 5 are asked, a fifth of those drop out."""
    recipe = coterie.feddyn(lr=0.2, batch_size=2, proximal_weight=1.0, objective=objective)
    last = run(recipe, MANY, rounds=300, cohort=3, faults=Faults(drop=0.2))[-1]
    assert w(last) == pytest.approx(optimum(objective), abs=1e-9)
    assert last.state["h"]["w"].item() == pytest.approx(0, abs=1e-9)


@settings(max_examples=10, deadline=None)
@given(st.integers(0, 10**6), st.sampled_from(["examples", "clients"]))
def test_h_is_the_mean_of_the_clients_gradients(rng_seed, objective):
    """h = sum_i p_i g_i, with g_i = 0 for who never took part, whoever was absent and whenever."""
    recipe = coterie.feddyn(lr=0.1, batch_size=2, proximal_weight=0.5, objective=objective)
    last = run(recipe, MANY, rounds=6, cohort=2, faults=Faults(drop=0.4), rng_seed=rng_seed)[-1]
    mean = sum(
        p * gradient(last, str(i)) for i, p in enumerate(shares(objective)) if last.store.get(str(i)) is not None
    )
    assert last.state["h"]["w"].item() == pytest.approx(mean, abs=1e-12)


@pytest.mark.parametrize("alpha", [0.0, -1.0, float("nan")])
def test_without_a_spring_there_is_nothing_to_bend(alpha):
    with pytest.raises(Mistake, match=r"proximal_weight = .*: it must be a number above 0"):
        coterie.feddyn(lr=0.1, proximal_weight=alpha)
