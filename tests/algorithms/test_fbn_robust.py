"""Robust FBN: statistics pooled in three stages by a rule that withstands attackers."""

from typing import Any

import pytest
import torch
from torch import nn

import coterie
from coterie import Examples
from coterie.aggregation import aggregation
from coterie.algorithms.batchnorm import statistics
from coterie.attacks import attack
from coterie.core.aggregators import Sum
from tests.algorithms.normed import PAPER, dense, every_engine, one_label_each, run
from tests.federations import distance


@every_engine
def test_a_trimmed_mean_that_trims_nothing_is_the_mean(engine: str) -> None:
    clients = one_label_each((6,))
    plain = run(coterie.fbn(**PAPER), dense(), clients, engine=engine)
    robust = run(
        coterie.fbn(**PAPER),
        dense(),
        clients,
        engine=engine,
        aggregation=aggregation("trimmed_mean", num_byzantine=0),
    )
    assert distance(plain.weights(), robust.weights()) < 1e-9


def test_three_stages_by_hand() -> None:
    """Five clients with two equal values each: 1, 2, 3, 4, 100, so that every s_i is 0. The median of the means is 3;
    of the squared distances 4, 1, 0, 1, 9409 it is 1; N = 10, so s = 10 / 9, M = 0.3, V = 0.9 + 1 / 9."""
    y = torch.zeros(2, dtype=torch.int64)
    clients = {str(v): Examples(torch.full((2, 1), v, dtype=torch.float64), y) for v in (1.0, 2.0, 3.0, 4.0, 100.0)}
    model = nn.Sequential(nn.BatchNorm1d(1), nn.Linear(1, 2)).double()
    last = run(coterie.fbn(**PAPER), model, clients, rounds=1, aggregation=aggregation("median"))
    assert last.weights()["0.running_mean"].item() == pytest.approx(0.3)
    assert last.weights()["0.running_var"].item() == pytest.approx(0.9 + 1 / 9)


@every_engine
@pytest.mark.parametrize("rule", [{}, {"name": "median"}, {"name": "multi_krum", "num_byzantine": 1}])
@pytest.mark.parametrize("steps", [1, 3])
def test_statistics_sent_as_the_authors_do_come_to_the_same(engine: str, rule: dict[str, Any], steps: int) -> None:
    """With honest clients, and for a rule whose result shifts and scales with its inputs."""
    options = {"lr": 0.01, "batch_size": 4, "local_steps": steps, "gradient": "pooled", "warm_start": 2}
    more = {"engine": engine, "rounds": 5, "aggregation": aggregation(**rule)}
    recipes = [coterie.fbn(variant="paper", **options, sends=sends) for sends in ("batch", "moved")]
    first, second = (run(recipe, dense(), one_label_each((6,)), **more).weights() for recipe in recipes)
    assert distance(first, second) < 1e-9


def test_a_sign_that_is_flipped_there_weighs_in_full() -> None:
    """Two honest clients with two values each, 1 and 3, so mu_i = 2 and s_i = 1, from M = 0 and V = 1: they send
    R = 0.2, S = 1, and the attacker -0.2, -1. Then M = 0.2 / 3, the mean of S is 1 / 3, that of (R_i - M)^2 is (2 *
    (0.4 / 3)^2 + (0.8 / 3)^2) / 3 = 0.32 / 9, and s = (1 + (1 / 3 - 1) / 0.1 + 0.32 / 9 / 0.01) 4 / 3 is below 0, so
    that V = 0.9. As batches they send 2, 1 and -2, -1: M = 0.2 / 3 too, and s = (1 / 3 + 32 / 9) 4 / 3, since the
    attacker's N_i = -2 is taken for 0."""
    x, y = torch.tensor([[1.0], [3.0]], dtype=torch.float64), torch.zeros(2, dtype=torch.int64)
    clients = {str(k): Examples(x, y) for k in range(3)}
    model = nn.Sequential(nn.BatchNorm1d(1), nn.Linear(1, 2)).double()
    for sends, var in [("moved", 0.9), ("batch", 0.9 + 0.1 * (1 / 3 + 32 / 9) * 4 / 3)]:
        recipe = coterie.fbn(**PAPER, sends=sends)
        last = run(recipe, model, clients, rounds=1, attack=attack("sign_flip", 1, on="statistics")).weights()
        assert last["0.running_mean"].item() == pytest.approx(0.2 / 3)
        assert last["0.running_var"].item() == pytest.approx(var)


@pytest.mark.parametrize("robust", ["all", "statistics"])
def test_robust_may_mean_the_statistics_alone(robust: Any) -> None:
    """With one client's parameters far away, only "all" takes their median."""
    clients = one_label_each((6,), n=5)
    options = {"rounds": 1, "aggregation": aggregation("median")}
    plain = run(coterie.fbn(**PAPER), dense(), clients, rounds=1)
    last = run(coterie.fbn(**PAPER, robust=robust), dense(), clients, **options)
    params = [name for name, _ in dense().named_parameters()]
    moved = max(float((plain.weights()[n] - last.weights()[n]).abs().max()) for n in params)
    assert (moved == 0) == (robust == "statistics")
    assert not torch.allclose(plain.weights()["1.running_mean"], last.weights()["1.running_mean"])


def test_clipping_at_a_given_length_is_left_out_for_statistics() -> None:
    """A length of 1e-9 leaves hardly anything of the parameters' differences; (M, V) move as without it."""
    clients = one_label_each((6,))
    clipped = aggregation("median", pre=["clip"], clip_length=1e-9)
    plain = run(coterie.fbn(**PAPER), dense(), clients, rounds=1, aggregation=aggregation("median")).weights()
    last = run(coterie.fbn(**PAPER), dense(), clients, rounds=1, aggregation=clipped).weights()
    for name, value in last.items():
        if "running" in name:
            assert torch.equal(value, plain[name])
    start = {name: p.detach() for name, p in dense().named_parameters()}
    assert distance({name: last[name] for name in start}, start) < 1e-8


@pytest.mark.parametrize("name", ["sign_flip", "ipm", "alie", "mimic", "large_values", "gaussian"])
@pytest.mark.parametrize("rule", ["mean", "median", "trimmed_mean", "multi_krum", "geometric_median"])
def test_the_variance_stays_positive_whatever_is_sent(name: str, rule: str) -> None:
    parameters = {} if rule == "mean" else {"num_byzantine": 2}
    last = run(
        coterie.fbn(**PAPER, statistics_momentum=1.0),
        dense(),
        one_label_each((6,), n=6),
        rounds=3,
        attack=attack(name, 2, on="statistics", **({"size": -1e10} if name == "large_values" else {})),
        aggregation=aggregation(rule, **parameters),
    )
    for layer in ("1", "5"):
        assert (last.weights()[f"{layer}.running_var"] >= 0).all()
    assert all(leaf.isfinite().all() for leaf in last.weights().values())


def test_a_lie_about_counts_moves_nothing_but_bessels_factor() -> None:
    """One of four clients says -1e9 values, or 1e9: N / (N - 1) lies between 1 and what 18 honest values give."""

    one = torch.ones(1, dtype=torch.float64)
    buffers = {"a.running_mean": one, "a.running_var": one, "a.num_batches_tracked": torch.tensor(0)}

    def pooled(said: float) -> float:
        updates = [
            {"mean": {"a": k * one}, "var": {"a": one}, "number": {"a": torch.tensor(said if k == 3 else 6.0)}}
            for k in range(4)
        ]
        found = statistics.move(buffers, statistics.three_stages(Sum()).combine(updates, [1.0] * 4), 1.0)
        return float(found["a.running_var"])

    between = 1.25  # of 0, 1, 2, 3
    assert pooled(-1e9) == pytest.approx((1 + between) * 18 / 17)
    assert pooled(1e9) == pytest.approx(1 + between)
