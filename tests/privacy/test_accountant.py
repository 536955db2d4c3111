"""The account: what the library says of the same events, closed forms, and targets that are kept."""

from __future__ import annotations

import math

import dp_accounting
import pytest
from dp_accounting import pld, rdp
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.stats import norm

from coterie import Mistake
from coterie.privacy.accountant import Event, calibrate, spent


def delta_of_gaussian(epsilon: float, multiplier: float) -> float:
    """Balle and Wang, ICML 2018, theorem 8: delta of one Gaussian release with sensitivity 1."""
    a, b = 1 / (2 * multiplier), epsilon * multiplier
    return float(norm.cdf(a - b) - math.exp(epsilon) * norm.cdf(-a - b))


@pytest.mark.parametrize(("multiplier", "rounds"), [(1.0, 1), (4.0, 16), (10.0, 7)])
def test_everyone_in_every_round_has_a_closed_form(multiplier: float, rounds: int) -> None:
    """T Gaussian releases with z are one with z / sqrt(T); the distributions round its epsilon up, by little."""
    epsilon = spent({Event(multiplier): rounds}, 1e-5)
    exact = multiplier / math.sqrt(rounds)
    assert delta_of_gaussian(epsilon, exact) <= 1e-5 <= delta_of_gaussian(epsilon - 0.01, exact)


def test_poisson_sampling_is_the_librarys() -> None:
    accountant = pld.PLDAccountant(dp_accounting.NeighboringRelation.ADD_OR_REMOVE_ONE)
    accountant.compose(dp_accounting.PoissonSampledDpEvent(0.1, dp_accounting.GaussianDpEvent(3.0)), 20)
    exact = accountant.get_epsilon(1e-5)  # on a grid ten times finer
    assert exact <= spent({Event(3.0, probability=0.1): 20}, 1e-5) <= 1.002 * exact


@pytest.mark.parametrize("probability", [1.0, 0.1])
def test_a_tiny_delta_has_an_epsilon_too(probability: float) -> None:
    """Distributions cut off more than it; the epsilon is finite, and above that of a larger delta."""
    account = {Event(1.0, probability): 4}
    accountant = rdp.RdpAccountant()
    gaussian = dp_accounting.GaussianDpEvent(1.0)
    sampled = dp_accounting.PoissonSampledDpEvent(probability, gaussian) if probability < 1 else gaussian
    accountant.compose(sampled, 4)
    assert spent(account, 1e-12) < spent(account, 1e-30) == pytest.approx(accountant.get_epsilon(1e-30), rel=0.01)


def test_a_fixed_size_counts_the_noise_half() -> None:
    """Replacing a client moves a sum of vectors of norm C by 2 C, and the library wants noise over sensitivity."""
    accountant = rdp.RdpAccountant(neighboring_relation=dp_accounting.NeighboringRelation.REPLACE_ONE)
    gaussian = dp_accounting.GaussianDpEvent(8.0 / 2)
    accountant.compose(dp_accounting.SampledWithoutReplacementDpEvent(100, 10, gaussian), 20)
    epsilon = spent({Event(8.0, fixed=(10, 100)): 20}, 1e-5)
    assert accountant.get_epsilon(1e-5) <= epsilon <= 1.02 * accountant.get_epsilon(1e-5)  # over more orders


@pytest.mark.parametrize("size", [1, 50, 99, 100])
def test_asking_some_at_random_never_costs_more_than_telling_who_was_asked(size: int) -> None:
    """Of 100 units; a replaced one moves a sum of everyone by 2, so this is everyone with half of the noise."""
    everyone = spent({Event(4.0 / 2): 10}, 1e-3)
    epsilon = spent({Event(4.0, fixed=(size, 100)): 10}, 1e-3)
    assert epsilon == everyone if size >= 50 else epsilon < everyone


def test_nothing_done_costs_nothing_and_more_rounds_cost_more() -> None:
    event = Event(4.0, fixed=(2, 10))
    assert spent({}, 1e-5) == spent({event: 0}, 1e-5) == 0.0
    costs = [spent({event: rounds}, 1e-5) for rounds in (1, 2, 5)]
    assert costs == sorted(costs)
    assert costs[0] > 0


def check_calibration(epsilon: float, delta: float, rounds: int, fixed: tuple[int, int] | None = None) -> None:
    """The target is kept; and a percent less noise costs more, so none is wasted."""
    multiplier = calibrate(epsilon, delta, lambda z: {Event(z, fixed=fixed): rounds})
    assert spent({Event(multiplier, fixed=fixed): rounds}, delta) <= epsilon
    assert spent({Event(0.99 * multiplier, fixed=fixed): rounds}, delta) > epsilon


@settings(max_examples=8, deadline=None)
@given(st.floats(0.3, 12.0), st.integers(1, 500), st.sampled_from([1e-5, 1e-3]))
def test_calibrated_noise_never_costs_more_than_was_asked(epsilon: float, rounds: int, delta: float) -> None:
    check_calibration(epsilon, delta, rounds)


def test_noise_for_cohorts_of_a_fixed_size_is_calibrated_too() -> None:
    check_calibration(3.0, 1e-3, 10, fixed=(5, 50))


def test_what_cannot_be_counted() -> None:
    with pytest.raises(Mistake, match=r"noise_multiplier = 0.0: it must be a number above 0"):
        Event(0.0)
    with pytest.raises(Mistake, match="cannot be added up"):
        spent({Event(1.0): 1, Event(1.0, fixed=(1, 2)): 1}, 1e-5)
    with pytest.raises(Mistake, match=r"delta = 1.0"):
        spent({}, 1.0)
    with pytest.raises(Mistake, match="no reasonable noise gives it"):
        calibrate(1e-6, 1e-9, lambda z: {Event(z): 10**6})
