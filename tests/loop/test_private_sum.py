"""A guarantee for clients whose updates are summed in secret: the same rounds, and noise that costs what is stated."""

from __future__ import annotations

import math
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn

import coterie
from coterie import Cohort, Examples, Mistake, Plan, Privacy, Round
from coterie.core import tree
from coterie.core.tree import Tree
from coterie.engines.sequential import Sequential
from coterie.loop.faults import Faults
from coterie.loop.federate import federate
from coterie.loop.private_round import release_sum
from coterie.loop.private_sum import LEAST_STEPS, private_form, share_of_sum
from tests.federations import ragged, seed_set

POSTERIORS = coterie.fedmd(lr=0.1, match="posteriors")
LIMIT = 1.15
"""Between the smallest and the largest norm of a first round's updates."""


def private_plan(recipe: Any = None, inputs: int = 6, clients: Any = None, **options: Any) -> Plan:
    torch.manual_seed(0)
    model = nn.Linear(inputs, 3).double()
    given = {"unit": "client", "clip_norm": LIMIT, "noise_multiplier": 1.0, "noise": "rng_seed", "where": "clients"}
    privacy = Privacy(**{**given, "secure_sum": True, **options.pop("privacy", {})})
    everything = {"rounds": 1, "rng_seed": 4, "engine": Sequential(dtype=torch.float64), "num_classes": 3, **options}
    recipe = coterie.fedavg(lr=0.5, batch_size=5) if recipe is None else recipe
    return coterie.plan(recipe, model, clients or ragged(), privacy=privacy, **everything)


def in_the_clear(plan: Plan) -> Plan:
    assert plan.privacy is not None
    return replace(plan, privacy=replace(plan.privacy, secure_sum=False))


def run(plan: Plan) -> list[Round]:
    return list(federate(plan))


def far(a: Round, b: Round) -> float:
    return max(float((x - y).abs().max()) for x, y in zip(tree.leaves(a.state), tree.leaves(b.state), strict=True))


@pytest.mark.parametrize("recipe", [coterie.fedavg(lr=0.5, batch_size=5), coterie.fedadam(lr=0.5, server_lr=0.1)])
@pytest.mark.parametrize("where", ["clients", "server"])
def test_the_opened_sum_is_the_plain_one(where: Any, recipe: Any) -> None:
    """A mean of n numbers, each rounded by half a step at most, is off by half a step.

    With where = "server" each update is scaled down by another sqrt(21) / 2 steps. Adam divides the mean by a number
    near its size, so that it is off by some steps over that size.
    """
    plan = private_plan(recipe, privacy={"where": where})
    secret, clear = run(plan)[0], run(in_the_clear(plan))[0]
    step = private_form(plan, 6).step
    assert far(secret, clear) <= 100 * step
    assert secret.measures["train_loss"] is None
    assert not secret.client_weights


def test_of_fedavg_the_mean_is_off_by_half_a_step() -> None:
    plan = private_plan()
    assert 0 < far(run(plan)[0], run(in_the_clear(plan))[0]) <= private_form(plan, 6).step / 2


@pytest.mark.parametrize(("where", "dropped"), [("clients", 0.0), ("clients", 0.5), ("server", 0.0)])
def test_the_noise_has_its_deviation_in_every_coordinate(where: Any, dropped: float) -> None:
    """30,003 coordinates of clients that do not move, whose deviation is known to 0.4 % (one standard deviation).

    The mean of four shares of the variance (z C)^2 / m has the variance (z C)^2 / (4 m), with m = 4 (1 - dropped).
    """
    clients = {client: Examples(torch.randn(4, 10_000), torch.arange(4) % 3) for client in "abcd"}
    privacy = {"where": where, "noise_multiplier": 3.0, "clip_norm": 0.2, "tolerated_dropouts": dropped}
    (round,) = run(private_plan(coterie.fedavg(lr=1e-12), 10_000, clients, privacy=privacy))
    moved = torch.cat([(round.before["params"][k] - round.state["params"][k]).reshape(-1) for k in ("weight", "bias")])
    expected = 3.0 * 0.2 / 4 / math.sqrt(1 - dropped)
    assert float(moved.std()) == pytest.approx(expected, rel=0.02)
    assert abs(float(moved.mean())) < 4 * expected / math.sqrt(30_003)


@pytest.mark.parametrize("deviation", [0.6, 0.8, 1.0])
def test_a_sum_of_rounded_numbers_is_a_noisy_sum_that_is_rounded_at_random(deviation: float) -> None:
    """The claim of `coterie.loop.private_sum`, with steps of 1: two distributions differ by (n + 1) r at most.

    The first is that of q_1 + q_2 + q_3, by the Gaussian's distribution function and two convolutions. The second is
    that of y = x_1 + x_2 + x_3 + N(0, 3 v^2), rounded to k with probability B_3(k - y). It is the density at k of the
    sum of all x_i, the noise and three uniform numbers: an integral over its characteristic function
    exp(-2 pi^2 3 v^2 t^2) sinc(t)^3.
    """
    x, k = np.array([0.37, -2.11, 5.5]), np.arange(-60, 61)
    below = np.vectorize(lambda z: math.erf(z / math.sqrt(2) / deviation) / 2)
    each = [below(k + 0.5 - a) - below(k - 0.5 - a) for a in x]
    summed = np.convolve(np.convolve(each[0], each[1]), each[2])
    at = np.arange(-180, 181)
    t = np.linspace(-6, 6, 60_001)
    spectrum = np.exp(-2 * np.pi**2 * 3 * deviation**2 * t**2) * np.sinc(t) ** 3
    near = np.abs(at - x.sum()) < 12
    rounded = [np.sum(spectrum * np.cos(2 * np.pi * t * (a - x.sum()))) * (t[1] - t[0]) for a in at[near]]
    bound = 4 * 2 * (1 + math.exp(-10)) * math.exp(-(np.pi**2) * deviation**2 / 2)
    differences = np.abs(summed[near] - np.array(rounded))
    assert sum(rounded) == pytest.approx(1.0, abs=1e-6)
    assert 0 < differences.max() <= bound


def test_nothing_of_one_step_is_left_of_the_bound_at_the_least_noise() -> None:
    """2^(b-1) (n + 1) r for 64 bits, 2^30 clients, 10^15 coordinates and 10^15 rounds, in powers of ten."""
    r = math.log10(2.1) - math.pi**2 * LEAST_STEPS**2 / 2 / math.log(10)
    assert 93 * math.log10(2) + r + 30 < -150


def test_rounding_leaves_no_norm_above_the_bound_where_the_server_adds_the_noise() -> None:
    """At 24 bits, rounding moves 12,000 numbers by about a hundredth of the bound; the bound leaves room for it."""
    plan = private_plan(privacy={"where": "server", "secure_bits": 24, "clip_norm": 0.1})
    form = private_form(plan, 6)
    largest = 0.0
    for seed in range(20):
        update = {"delta": {"w": torch.randn(12_000, generator=torch.manual_seed(seed))}}
        share = share_of_sum(plan, 1, "0", update, form)["delta"]["w"].numpy()
        largest = max(largest, float(np.linalg.norm(form.decode(form.encode(share)))))
    assert 0.09 < largest <= 0.1


def decoded_beside_garbage(plan: Plan, moved: float) -> Tree:
    """Return what six clients' opened sum looks like where one is garbage: it lies `moved` above the last number."""
    form = private_form(plan, 6)
    beyond = np.full(21, form.modulus / 2 - form.step) + moved
    residues = np.rint(beyond / form.step).astype(np.int64).view(np.uint64)
    numbers = torch.from_numpy(form.decode(form.unpack(form.pack(residues))))
    return {"delta": {"buffers": {}, "params": {"weight": numbers[:18].reshape(3, 6), "bias": numbers[18:]}}}


def test_garbage_that_lets_a_sum_wrap_around_shows_nothing_of_another_client() -> None:
    """Without one client the sum is the largest number; with it, it wraps to the smallest. Modulo 2^b both are near."""
    plan = private_plan(privacy={"where": "server"})
    form, round = private_form(plan, 6), run(plan)[0]
    totals = [decoded_beside_garbage(plan, moved) for moved in (0.0, 0.2)]
    assert float((totals[0]["delta"]["params"]["bias"] - totals[1]["delta"]["params"]["bias"]).min()) > form.modulus - 1
    broadcast = plan.algorithm.server.broadcast(round.before)
    means = [release_sum(plan, 1, round.before, broadcast, total, modulus=form.modulus)[0] for total in totals]
    for one, other in zip(*map(tree.leaves, means), strict=True):
        apart = 6 * (other - one)
        assert torch.allclose(
            apart - form.modulus * (apart / form.modulus).round(), torch.tensor(0.2).double(), atol=1e-5
        )
        assert float(torch.maximum(one, other).abs().max()) <= form.modulus / 2 / 6


def test_the_server_s_noise_has_room_in_the_range_of_the_sum() -> None:
    """Noise of 60 bounds on a sum of six at most: without garbage nothing wraps around."""
    plan = private_plan(privacy={"where": "server", "noise_multiplier": 60.0})
    secret, clear = run(plan)[0], run(in_the_clear(plan))[0]
    assert far(secret, clear) <= 100 * private_form(plan, 6).step


@pytest.mark.filterwarnings("ignore:coterie")
def test_too_few_shares_of_the_noise_open_nothing() -> None:
    privacy = {"tolerated_dropouts": 0.2, "secure_threshold": 0.5}
    rounds = run(private_plan(faults=Faults(drop=0.3), rounds=8, privacy=privacy))
    assert {0, 5} <= {round.reached for round in rounds} <= {0, 5, 6}
    for round in rounds:
        if round.reached == 0:
            assert tree.leaves(round.state)[0] is tree.leaves(round.before)[0]
            assert "a secure sum needs 5" in str(round.dropped)


def test_an_update_that_is_not_finite_adds_its_noise_alone() -> None:
    (round,) = run(private_plan(coterie.fedavg(lr=1e308, local_steps=3)))
    assert round.reached == 6
    assert tree.is_finite(round.state)


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"privacy": {"where": "server"}, "cohort": Cohort(fraction=0.9, sampling="poisson")}, "show who takes part"),
        ({"privacy": {"where": "server", "clip": "adaptive"}}, '"fixed" with secure_sum'),
        ({"privacy": {"secure_limit": 7.0}}, "the bound and the noise give it"),
        ({"privacy": {"secure_bits": 16, "noise_multiplier": 1e-3}}, "secure_bits = 16: steps of .* give more bits"),
        ({"privacy": {"secure_bits": 16, "where": "server", "clip_norm": 0.01}}, "give more bits"),
        ({"recipe": POSTERIORS, "privacy": {"where": "server"}, "seed_set": seed_set()}, "leave secure_sum"),
    ],
)
def test_what_is_refused(options: dict[str, Any], words: str) -> None:
    with pytest.raises(Mistake, match=words):
        run(private_plan(**options))
