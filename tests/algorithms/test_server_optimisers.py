"""What the server does with the averaged difference."""

from __future__ import annotations

import math

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

import coterie
from coterie import Mistake
from coterie.algorithms import server
from tests.algorithms.quadratics import run, w
from tests.federations import dense, distance, ragged


def walk(optimizer, differences, start=1.0):
    """w after each difference, from `start`; and the last state."""
    params = {"w": torch.tensor(start, dtype=torch.float64)}
    state = optimizer.init(params)
    found = []
    for d in differences:
        params, state = optimizer.apply(params, {"w": torch.tensor(d, dtype=torch.float64)}, state)
        found.append(params["w"].item())
    return found, state


def test_sgd_with_momentum_by_hand():
    """beta 1/2, lr 1/4, d = 2, 1: m = 2, 2 and w = 1 - 1/2 - 1/2."""
    assert walk(server.sgd(0.25, 0.5), [2.0, 1.0])[0] == [0.5, 0.0]


def test_adagrad_by_hand():
    """tau 1/2, d = 2, 1 without momentum: v = 1/4 + 4, + 1; w moves by lr d / (sqrt(v) + 1/2)."""
    first = 1 - 0.1 * 2 / (math.sqrt(4.25) + 0.5)
    found, state = walk(server.adagrad(0.1, 0.0, 0.5), [2.0, 1.0])
    assert found == pytest.approx([first, first - 0.1 / (math.sqrt(5.25) + 0.5)])
    assert state["second"]["w"].item() == 5.25


def test_adam_by_hand_has_no_bias_correction():
    """beta1 = beta2 = 1/2, tau 1/2, d = 2, 1: m = 1, 1; v = 1/8 + 2 = 17/8, 17/16 + 1/2 = 25/16. The second step moves
    by lr 1 / (5/4 + 1/2)."""
    first = 1 - 0.1 / (math.sqrt(17 / 8) + 0.5)
    assert walk(server.adam(0.1, 0.5, 0.5, 0.5), [2.0, 1.0])[0] == pytest.approx([first, first - 0.1 / 1.75])


def test_yogi_by_hand():
    """beta1 = beta2 = 1/2, tau 1/2, d = 2, 1: m = 1, 1; v = 1/4 + 2 = 9/4, then above d^2: 9/4 - 1/2 = 7/4."""
    found, state = walk(server.yogi(0.1, 0.5, 0.5, 0.5), [2.0, 1.0])
    assert found == pytest.approx([0.95, 0.95 - 0.1 / (math.sqrt(7 / 4) + 0.5)])
    assert state["second"]["w"].item() == 7 / 4


@given(st.lists(st.floats(-100, 100), min_size=1, max_size=30))
def test_yogis_second_moment_stays_above_zero(differences):
    """Where v > d^2 it loses (1 - beta2) d^2 < v, and elsewhere it grows."""
    found, state = walk(server.yogi(0.1, 0.9, 0.6, 1e-3), differences)
    assert state["second"]["w"].item() > 0
    assert all(map(math.isfinite, found))


@pytest.mark.parametrize(
    "recipe", [coterie.fedavgm(lr=0.1, batch_size=5, server_momentum=0.0), coterie.fedavg(lr=0.1, batch_size=5)]
)
def test_fedavgm_without_momentum_is_fedavg_bit_for_bit(recipe):
    plain = list(coterie.federate(coterie.fedavg(lr=0.1, batch_size=5), dense(), ragged(), rounds=4, cohort=0.7))[-1]
    other = list(coterie.federate(recipe, dense(), ragged(), rounds=4, cohort=0.7))[-1]
    assert distance(plain.weights(), other.weights()) == 0


def test_rounds_of_fedavgm_by_hand():
    """FedAvg's round from 0 goes to 2, so d = -2. With momentum 1/2: w = 2, then one more round.

    From 2, lr 1/2, two steps: client 0 (1, 4): 2 -> 3 -> 7/2; client 1 (2, -1): 2 -> -1 -> -1. Mean 21/8 - 2/8 = 19/8,
    d = -3/8, m = -3/8 - 1 = -11/8, w = 27/8.
    """
    first, second = run(coterie.fedavgm(lr=0.5, local_steps=2, server_momentum=0.5), rounds=2)
    assert (w(first), w(second)) == (2.0, 27 / 8)


@pytest.mark.parametrize(
    ("recipe", "v"), [(coterie.fedadagrad, 4.25), (coterie.fedadam, 17 / 8), (coterie.fedyogi, 2.25)]
)
def test_a_round_of_the_adaptive_ones_by_hand(recipe, v):
    """d = -2 as above; tau 1/2, beta2 1/2, and beta1 1/2 give m = -1: w = 0.1 / (sqrt(v) + 1/2)."""
    options = {} if recipe is coterie.fedadagrad else {"server_second_momentum": 0.5}
    last = run(recipe(lr=0.5, local_steps=2, server_momentum=0.5, server_adaptivity=0.5, **options))[-1]
    assert w(last) == pytest.approx(0.1 / (math.sqrt(v) + 0.5))


def test_float_buffers_take_the_plain_mean_whatever_the_optimiser():
    weights = [
        list(coterie.federate(recipe(lr=0.1), dense(), ragged(), rounds=1))[-1].weights()
        for recipe in (coterie.fedavg, coterie.fedadam)
    ]
    statistics = [{k: v for k, v in found.items() if "running" in k} for found in weights]
    assert len(statistics[0]) == 2
    assert distance(*statistics) == 0
    assert distance(*weights) > 0.01


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("server_lr", 0.0),
        ("server_momentum", 1.0),
        ("server_second_momentum", -0.1),
        ("server_adaptivity", 0.0),
    ],
)
def test_values_out_of_range_are_refused(key, value):
    for recipe in (coterie.fedadam, coterie.fedyogi):
        with pytest.raises(Mistake, match=rf"{key} = {value}: it must be "):
            recipe(lr=0.1, **{key: value})
