"""What a guarantee costs in a federation, and what it needs of the plan: both are settled before the first round.

Legend: N clients, n of a cohort on average, q = n / N, C the bound on an update, P parts with a bound of their own.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import replace

from coterie.core import tree
from coterie.core.aggregators import Sum
from coterie.core.algorithm import DIFFERENCE
from coterie.core.errors import Mistake
from coterie.loop.cohort import Cohort
from coterie.loop.plan import Plan
from coterie.privacy.accountant import Event, calibrate, spent
from coterie.privacy.table import Privacy

DELTA_POWER = -1.1
"""delta is N to this power unless it is given: smaller than 1 / N, as McMahan et al. 2018 choose it."""


def event_of_round(cohort: Cohort, population: int, multiplier: float) -> Event:
    """Return what a round costs, as an event of the account: everyone, a Poisson sample, or a fixed number n of N."""
    if cohort.sampling == "poisson":
        return Event(multiplier, cohort.probability(population))
    n = cohort.count(population)
    return Event(multiplier) if n == population else Event(multiplier, fixed=(n, population))


def mean_cohort_size(cohort: Cohort, population: int) -> float:
    """Return how many clients a round asks on average: what sums are divided by, whoever answers."""
    return cohort.probability(population) * population


def clients_asked(plan: Plan) -> float:
    """Return how many clients a round of a plan asks on average; a silo's plan does not know all, and is told."""
    return mean_cohort_size(plan.cohort, len(plan.ids)) if plan.all_silos_cohort is None else plan.all_silos_cohort


def complete_privacy(privacy: Privacy, cohort: Cohort, population: int, rounds: int) -> Privacy:
    """Return [privacy] with its delta and its noise multiplier, which is calibrated for the rounds unless it is given.

    Raises:
        Mistake: the rounds would spend more than `epsilon`, or no noise gives it.
    """
    delta = privacy.delta if privacy.delta is not None else min(population**DELTA_POWER, 0.1)
    multiplier, target = privacy.noise_multiplier, privacy.epsilon
    if multiplier is None:
        assert target is not None, "one of the two is given"
        multiplier = calibrate(target, delta, lambda z: {event_of_round(cohort, population, z): rounds})
    elif target is not None:
        cost = spent({event_of_round(cohort, population, multiplier): rounds}, delta)
        if cost > target:
            raise Mistake(
                f"{rounds} rounds with `noise_multiplier` = {multiplier:g} spend {cost:.3g}; run fewer rounds, or "
                "start another run with more noise",
                key="epsilon",
                value=target,
            )
    complete = replace(privacy, delta=delta, noise_multiplier=multiplier)
    _check_count_noise(complete, mean_cohort_size(cohort, population))
    return complete


def count_noise(privacy: Privacy, expected: float) -> float:
    """Return the standard deviation of the noise on the count of updates within an adaptive bound.

    By default a twentieth of the cohort (Andrew et al. 2021, section 3.1), and so much at least that the updates' noise
    grows by a quarter at most.
    """
    assert privacy.noise_multiplier is not None, "the privacy is complete"
    return privacy.count_noise or max(expected / 20, privacy.noise_multiplier / 1.2)


def update_multiplier(privacy: Privacy, expected: float) -> float:
    """Return the noise on the updates' sum over C: z, or with an adaptive bound a little more.

    The count's sensitivity is 1/2, so both releases together cost what one with z costs if z_u^-2 + (2 s)^-2 = z^-2
    (Andrew, Thakkar, McMahan, Ramaswamy: Differentially Private Learning with Adaptive Clipping, NeurIPS 2021,
    theorem 1).
    """
    z = privacy.noise_multiplier
    assert z is not None, "the privacy is complete"
    if privacy.clip == "fixed":
        return z
    return float((z**-2 - (2 * count_noise(privacy, expected)) ** -2) ** -0.5)


def _check_count_noise(privacy: Privacy, expected: float) -> None:
    z = privacy.noise_multiplier
    assert z is not None, "the privacy is complete"
    if privacy.clip == "adaptive" and 2 * count_noise(privacy, expected) <= z:
        raise Mistake(key="count_noise", value=privacy.count_noise, allowed=f"above {z / 2:g}, half of the multiplier")


def bounds_of(privacy: Privacy, parts: Mapping[str, object]) -> Mapping[str, float] | None:
    """Return the bound of each part of an update; None where all are bounded together.

    Raises:
        Mistake: a part has no bound, or there is no such part.
    """
    if privacy.clip_norms is None:
        return None
    missing = [part for part in parts if part not in privacy.clip_norms]
    if missing:
        sentence = f"the part {missing[0]} of an update has none; the parts are {', '.join(parts)}"
        raise Mistake(sentence, key="clip_norms", value=privacy.clip_norms)
    return {part: privacy.clip_norms[part] for part in parts}


def least_reached(privacy: Privacy, expected: float) -> int:
    """Return how many updates must count, where clients add the noise, for it to suffice."""
    return math.ceil(expected * (1 - privacy.tolerated_dropouts) - 1e-9)


def check_private(plan: Plan) -> None:
    """Refuse a plan in which something would escape its guarantee.

    Raises:
        Mistake: it would; the sentence says what to do.
    """
    privacy = plan.guarantee
    if privacy is None:
        return
    if plan.aggregator != Sum():
        raise Mistake(
            'a robust rule sees single updates, and noise protects a sum; set aggregation.name = "mean"', key="unit"
        )
    if plan.probe is not None:
        raise Mistake("a probe shows measures of single updates; leave [probe] out", key="unit")
    if plan.attack is not None and plan.attack.forge is not None:
        raise Mistake(
            "simulated attackers make their updates from those of all others, so a client would move the sum by more "
            "than its bound; leave [attack] out, or poison labels",
            key="unit",
        )
    if plan.evaluation.clients:
        raise Mistake("clients' own accuracies show their data; set evaluate.clients = false", key="unit")
    if plan.available is not None and plan.cohort.sampling == "uniform" and plan.cohort_size() < len(plan.ids):
        raise Mistake(
            'who is available would decide who takes part; give a cohort with `sampling` = "poisson", or leave '
            "`available` out"
        )
    if privacy.where == "clients" and plan.cohort.sampling == "poisson":
        raise Mistake(
            'the shares of the noise need a cohort of a fixed size; set cohort.sampling = "uniform"',
            key="where",
            value="clients",
        )
    if privacy.secure_sum and plan.cohort.sampling == "poisson":
        raise Mistake(
            "a secure sum of too few clients is not opened, which would show who takes part; set cohort.sampling = "
            '"uniform"',
            key="secure_sum",
            value=True,
        )
    if any(not tree.is_finite(weights) for weights in plan.initial.values()):
        raise Mistake("the model holds infinite numbers, to which no noise can be added; replace them", key="unit")
    named = set[str]()
    for round in plan.rounds_of_stages():
        named |= set(check_parts(plan.in_round(round)))
    unknown = sorted((privacy.clip_norms or {}).keys() - named)
    if unknown:
        sentence = f"updates have no part {unknown[0]}; the parts are {', '.join(sorted(named))}"
        raise Mistake(sentence, key="clip_norms", value=privacy.clip_norms)


def check_parts(plan: Plan) -> Mapping[str, object]:
    """Return the parts of an update in a round; refuse an algorithm that does not protect all of them.

    Raises:
        Mistake: it does not.
    """
    privacy, server = plan.guarantee, plan.algorithm.server
    assert privacy is not None, "a guarantee is given"
    protected = server.private
    if isinstance(protected, str):
        raise Mistake(protected, key="unit", value=privacy.unit)
    open_parts = [part for part in server.weighting if part not in protected]
    if open_parts:
        sentence = f"the algorithm does not say how the part {open_parts[0]} of its updates is bounded"
        raise Mistake(f"{sentence}; it must, in ServerHalf.private", key="unit", value=privacy.unit)
    if any(protected[part] is not DIFFERENCE for part in server.weighting):
        sentence = "the server must see what this algorithm bounds"
        if privacy.where == "clients":
            raise Mistake(f'{sentence}; set `where` = "server"', key="where", value="clients")
        if privacy.secure_sum:
            raise Mistake(f"{sentence}; leave `secure_sum` out", key="secure_sum", value=True)
    bounds_of(privacy, server.weighting)
    return server.weighting
