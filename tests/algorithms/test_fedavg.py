"""Federated averaging on problems whose answers are known."""

from __future__ import annotations

import pytest
import torch

import coterie
from coterie import Mistake
from coterie.algorithms import server
from coterie.core.examples import pool_examples
from coterie.core.toml_text import toml_text
from coterie.models import build
from tests.algorithms.quadratics import MANY, A, B, N, optimum, run, shares, w
from tests.federations import distance, ragged


def test_a_round_by_hand():
    """From w = 0, two steps of lr 1/2. Client 0 (a, b = 1, 4): 0 -> 2 -> 3. Client 1 (2, -1): 0 -> -1 -> -1. Mean
    3/4 3 - 1/4 1 = 2; with server_lr 1/2 the server goes half the way."""
    assert w(run(coterie.fedavg(lr=0.5, local_steps=2))[-1]) == 2.0
    assert w(run(coterie.fedavg(lr=0.5, local_steps=2, server_lr=0.5))[-1]) == 1.0


def test_local_momentum_by_hand():
    """lr 1/2, momentum 1/2. Client 0: g -4, m -4, w 2; g -2, m -4, w 4. Client 1: g 2, m 2, w -1; g 0, m 1, w -3/2.
    Mean 3 - 3/8."""
    assert w(run(coterie.fedavg(lr=0.5, local_steps=2, momentum=0.5))[-1]) == 3 - 3 / 8


def test_fixed_point_is_biased_as_the_closed_form_says():
    """K steps take w to b + r (w - b) with r = (1 - lr a)^K, so the mean stands still at
    sum p (1 - r) b / sum p (1 - r), which is no one's optimum when the r differ. Batches of 2 make K_i = ceil(n_i / 2).
    """
    p, steps = shares("examples"), [-(-n // 2) for n in N]
    q = [k * (1 - (1 - 0.3 * a) ** K) for k, a, K in zip(p, A, steps, strict=True)]  # p (1 - r)
    fixed = sum(k * b for k, b in zip(q, B, strict=True)) / sum(q)
    reached = w(run(coterie.fedavg(lr=0.3, batch_size=2), MANY, rounds=150)[-1])
    assert reached == pytest.approx(fixed, abs=1e-10)
    assert abs(fixed - optimum("examples")) > 0.1


def test_one_step_each_has_no_bias():
    assert w(run(coterie.fedsgd(lr=0.3), MANY, rounds=150)[-1]) == pytest.approx(optimum("examples"), abs=1e-10)


def test_one_client_a_round_counts_as_much_as_any_other():
    """n_i / m_t is then 1. With clients in turn the number of examples has no part in where it ends: as far as the
    steps are small, at the optimum of clients alike."""
    in_turn = run(coterie.fedsgd(lr=0.02), MANY, rounds=500, available=lambda t, client: int(client) == t % 5)
    assert w(in_turn[-1]) == pytest.approx(optimum("clients"), abs=0.1)
    assert abs(optimum("examples") - optimum("clients")) > 0.3


def test_fedsgd_is_gradient_descent_on_the_pooled_data():
    """sum_i (n_i / n) grad F_i is the gradient of the mean loss over all examples, whoever holds them: 20 rounds over
    six unequal clients end where 20 steps of one client that holds everything end, to float32's rounding."""
    clients = ragged(sizes=(7, 23, 1, 12, 16, 9))
    model = build("mlp", [6], 3, rng_seed=0, hidden=[16])
    together = {"all": pool_examples(clients.values())}
    apart, one = (
        list(coterie.federate(coterie.fedsgd(lr=0.5), model, who, rounds=20))[-1] for who in (clients, together)
    )
    assert distance(apart.weights(), one.weights()) < 1e-5
    assert distance(one.weights(), dict(model.state_dict())) > 0.1


def test_a_server_optimiser_brings_its_own_rate():
    with pytest.raises(Mistake, match=r'server = "adam": it must be a server optimiser, such as coterie\.alg'):
        coterie.fedavg(lr=0.1, server="adam")  # type: ignore[arg-type]
    with pytest.raises(Mistake, match=r"server_lr = 0.5: it must be left out beside server, which has its own"):
        coterie.fedavg(lr=0.1, server_lr=0.5, server=server.sgd(0.5))


@pytest.mark.parametrize("key", ["local_epochs", "local_steps"])
@pytest.mark.parametrize("value", [1.5, 2.0, 0, "all"])
def test_passes_and_steps_are_counted_in_whole_numbers(key, value):
    with pytest.raises(Mistake, match=rf"{key} = {toml_text(value)}: it must be a whole number, 1 or more"):
        coterie.fedavg(lr=0.1, **{key: value})


def test_integer_buffers_are_not_averaged():
    """The count of batches in BatchNorm stays the server's own, and does not travel."""
    model = torch.nn.Sequential(torch.nn.Linear(6, 4), torch.nn.BatchNorm1d(4), torch.nn.Linear(4, 3))
    last = list(coterie.federate(coterie.fedavg(lr=0.1), model, ragged(), rounds=2, keep_updates=True))[-1]
    assert last.weights()["1.num_batches_tracked"].item() == 0
    assert set(last.updates["0"]["delta"]["buffers"]) == {"1.running_mean", "1.running_var"}
