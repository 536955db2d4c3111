"""What a series of noisy sums costs: epsilon at a delta, and the noise that a target allows. It imports dp-accounting.

One *event* is one release: the sum of what the sampled units contribute, each of norm 1 at most, plus Gaussian noise of
standard deviation `noise_multiplier` in every coordinate. A unit is a client, or an example at one client. Events are
composed, so a run that stops early has spent what the rounds that it has run cost. An account is a mapping from events
to how often each was done; whoever has several kinds of releases puts all of them into one mapping.

    everyone, or Poisson sampling    neighbours differ by one unit that is there or not; privacy-loss distributions
    a fixed size, n of N             neighbours differ by one unit that is replaced, so a sum moves by 2 at most and the
                                     noise counts half; Renyi divergences, or distributions of releases of all

For cohorts near everyone, the bound for a fixed size is above the one that gives no credit for who was asked at random:
if that were told, each release would be one of everyone, in which a replaced unit moves the sum by 2. The lower one
holds.

Only events with one kind of neighbour can be composed.

Koskela, Jalko, Honkela: Computing Tight Differential Privacy Guarantees Using FFT, AISTATS 2020 (privacy-loss
distributions). Wang, Balle, Kasiviswanathan: Subsampled Renyi Differential Privacy and Analytical Moments Accountant,
AISTATS 2019, theorem 27 (a fixed size). Both as the library has them.
"""

from __future__ import annotations

import functools
import itertools
import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Literal

from coterie.core.errors import Mistake, require
from coterie.core.packages import import_package

SMALL_NOISE = 0.3
"""Below this multiplier Renyi divergences are used: distributions need much memory there, and epsilon is large."""
INTERVAL = 1e-3
"""The grid of privacy losses. A coarse grid rounds epsilon up; at this one by a thousandth of it or so."""
ORDERS = (*range(2, 33), 40, 48, 64, 96, 128, 256)
"""The orders of Renyi divergences that are looked at."""
TOLERANCE = 5e-3
"""How much larger than needed a calibrated multiplier may be, relatively."""
MIN_MULTIPLIER, MAX_MULTIPLIER = 1e-2, 1e4
"""Between which multipliers one is looked for."""


@dataclass(frozen=True)
class Event:
    """One release of a noisy sum.

    Attributes:
        noise_multiplier: the standard deviation of the noise, over the bound on the norm of what one unit adds; > 0.
        probability: with which each unit takes part, by a draw of its own (Poisson sampling); 1: all do.
        fixed: (n, N): instead, n of the N units take part, every choice of n with the same probability.

    Raises:
        Mistake: a number is out of its range.
    """

    noise_multiplier: float
    probability: float = 1.0
    fixed: tuple[int, int] | None = None

    def __post_init__(self) -> None:
        z, q = self.noise_multiplier, self.probability
        require("noise_multiplier", z, 0 < z < float("inf"), "a number above 0")
        require("probability", q, 0 < q <= 1, "above 0 and at most 1")
        if self.fixed is not None:
            require("fixed", list(self.fixed), q == 1 and 1 <= self.fixed[0] <= self.fixed[1], "[n, N], n from 1 to N")

    @property
    def neighbours(self) -> Literal["add or remove", "replace"]:
        """How data sets differ that the guarantee makes alike: by a unit that is added or removed, or replaced."""
        return "add or remove" if self.fixed is None else "replace"


Account = Mapping[Event, int]
"""How often each event was done."""


def spent(account: Account, delta: float) -> float:
    """Return the epsilon of an account at a delta; 0 where nothing was done. It never depends on data.

    Raises:
        Mistake: delta is out of range, dp-accounting is not installed, or the events have different neighbours.

    >>> round(spent({Event(2.0): 1}, 1e-5), 2)
    1.99
    """
    require("delta", delta, 0 < delta < 1, "above 0 and below 1")
    return _spent(tuple((event, count) for event, count in account.items() if count), delta)


@functools.lru_cache(maxsize=256)
def _spent(account: tuple[tuple[Event, int], ...], delta: float) -> float:
    if not account:
        return 0.0
    kinds = {event.neighbours for event, _ in account}
    if len(kinds) > 1:
        raise Mistake("releases with cohorts of a fixed size and others cannot be added up; choose one `sampling`")
    merged = _merge_releases_of_all(account)
    neighbours = kinds.pop()
    if neighbours == "add or remove" and min(e.noise_multiplier for e in merged) >= SMALL_NOISE:
        epsilon = _epsilon(merged, delta, _accountant(True, neighbours))
        if math.isfinite(epsilon):
            return epsilon  # a tiny delta is below the mass that distributions cut off, and Renyi divergences cut none
    epsilon = _epsilon(merged, delta, _accountant(False, neighbours))
    if neighbours == "add or remove":
        return epsilon
    of_all = tuple((Event(event.noise_multiplier / 2), count) for event, count in account)
    return min(epsilon, _spent(of_all, delta))


def _epsilon(account: Account, delta: float, accountant: Any) -> float:
    for event, count in account.items():
        accountant.compose(_event(event), count)
    return float(accountant.get_epsilon(delta))


def _merge_releases_of_all(account: tuple[tuple[Event, int], ...]) -> dict[Event, int]:
    """Return the account with all releases in which everyone takes part as one, which costs exactly as much.

    Gaussian releases with z_1, z_2, ... are one with z, where 1 / z^2 = 1 / z_1^2 + 1 / z_2^2 + ... (Dong, Roth, Su:
    Gaussian Differential Privacy, JRSS B 2022, corollary 3.3).
    """
    merged = {event: count for event, count in account if event.probability < 1 or event.fixed is not None}
    precision = sum(count / e.noise_multiplier**2 for e, count in account if e.probability == 1 and e.fixed is None)
    return merged | ({Event(1 / math.sqrt(precision)): 1} if precision else {})


def calibrate(epsilon: float, delta: float, account: Callable[[float], Account]) -> float:
    """Return a noise multiplier, about the smallest, with which an account costs `epsilon` at most.

    Args:
        epsilon, delta: the target.
        account: noise multiplier -> the account of all that is planned.

    Raises:
        Mistake: the target is out of range, or needs a multiplier above 10,000.

    >>> z = calibrate(2.0, 1e-5, lambda z: {Event(z): 10})
    >>> spent({Event(z): 10}, 1e-5) <= 2.0
    True
    """
    require("epsilon", epsilon, 0 < epsilon < float("inf"), "a number above 0")

    def excess(multiplier: float) -> float:
        """Return log(epsilon spent / epsilon), which is near a line in log(multiplier)."""
        return math.log(max(spent(account(multiplier), delta), 1e-300) / epsilon)

    low, high = 1.0, 1.0
    at_low = at_high = excess(1.0)
    while at_high > 0:
        low, at_low, high = high, at_high, 2 * high
        if high > MAX_MULTIPLIER:
            raise Mistake(
                "no reasonable noise gives it; raise it or `delta`, or plan fewer rounds", key="epsilon", value=epsilon
            )
        at_high = excess(high)
    while at_low <= 0:
        high, at_high, low = low, at_low, low / 2
        if low < MIN_MULTIPLIER:
            return high
        at_low = excess(low)
    for k in itertools.count():
        if high <= low * (1 + TOLERANCE):
            return high
        share = 0.5 if k % 3 == 2 else at_low / (at_low - at_high)  # where the line through both ends is 0
        nudge = TOLERANCE / 3 if k % 3 == 0 else -TOLERANCE / 3  # to come from both sides
        middle = low * (high / low) ** share * (1 + nudge)
        middle = min(max(middle, low * (1 + TOLERANCE / 3)), high / (1 + TOLERANCE / 3))
        at_middle = excess(middle)
        if at_middle <= 0:
            high, at_high = middle, at_middle
        else:
            low, at_low = middle, at_middle
    raise AssertionError("the interval shrinks in each step")


def _event(event: Event) -> Any:
    """Return the library's event."""
    library = _library()
    if event.fixed is not None:
        n, of = event.fixed
        gaussian = library.GaussianDpEvent(event.noise_multiplier / 2)  # a replaced unit moves the sum by 2 bounds
        return library.SampledWithoutReplacementDpEvent(of, n, gaussian)
    gaussian = library.GaussianDpEvent(event.noise_multiplier)
    return gaussian if event.probability == 1 else library.PoissonSampledDpEvent(event.probability, gaussian)


def _accountant(by_distributions: bool, neighbours: str) -> Any:
    relations = _library().NeighboringRelation
    relation = relations.REPLACE_ONE if neighbours == "replace" else relations.ADD_OR_REMOVE_ONE
    if by_distributions:
        return import_package("dp_accounting.pld", "[privacy]", "privacy").PLDAccountant(relation, INTERVAL)
    return import_package("dp_accounting.rdp", "[privacy]", "privacy").RdpAccountant(ORDERS, relation)


def _library() -> Any:
    return import_package("dp_accounting", "[privacy]", "privacy")
