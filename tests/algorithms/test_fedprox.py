"""FedProx: the spring."""

from __future__ import annotations

import pytest

import coterie
from coterie import Mistake
from tests.algorithms.quadratics import MANY, A, B, optimum, run, shares, w
from tests.federations import dense, distance, ragged


def test_without_a_spring_it_is_fedavg_bit_for_bit():
    options = {"lr": 0.1, "batch_size": 5, "local_epochs": 2, "momentum": 0.5, "clip_norm": 1.0}
    one, other = (
        list(coterie.federate(recipe, dense(), ragged(), rounds=4, cohort=0.7))[-1]
        for recipe in (coterie.fedavg(**options), coterie.fedprox(proximal_weight=0.0, **options))
    )
    assert distance(one.weights(), other.weights()) == 0


def test_a_round_by_hand():
    """mu = 1, from w = 0, two steps of lr 1/2. Client 0 (a, b = 1, 4): gradient -4 + 0, w 2; -2 + 2, w 2. Client 1
    (2, -1): 2 + 0, w -1; 0 - 1, w -1/2. Mean 3/4 2 - 1/4 1/2 = 11/8."""
    assert w(run(coterie.fedprox(lr=0.5, local_steps=2, proximal_weight=1.0))[-1]) == 11 / 8


@pytest.mark.parametrize("mu", [0.5, 5.0])
def test_fixed_point_nears_the_optimum_as_the_spring_stiffens(mu):
    """K steps from w leave r = (1 - lr (a + mu))^K of the way to (a b + mu w) / (a + mu), so the mean stands still at
    sum q b / sum q with q = p (1 - r) a / (a + mu). For large mu that nears the optimum, sum p a b / sum p a."""
    p = shares("examples")
    q = [k * (1 - (1 - 0.15 * (a + mu)) ** 4) * a / (a + mu) for k, a in zip(p, A, strict=True)]
    fixed = sum(k * b for k, b in zip(q, B, strict=True)) / sum(q)
    recipe = coterie.fedprox(lr=0.15, local_steps=4, proximal_weight=mu)
    assert w(run(recipe, MANY, rounds=120)[-1]) == pytest.approx(fixed, abs=1e-8)
    assert (abs(fixed - optimum("examples")) < 0.1) == (mu == 5.0)


@pytest.mark.parametrize("mu", [-0.1, float("nan"), float("inf")])
def test_a_spring_that_pushes_is_refused(mu):
    with pytest.raises(Mistake, match=r"proximal_weight = .*: it must be 0 or more"):
        coterie.fedprox(lr=0.1, proximal_weight=mu)
