"""The line search for the factor with which an attack does most harm.

Legend: f attackers, d numbers in a part of the update.
"""

from __future__ import annotations

from collections.abc import Callable

from torch import Tensor

from coterie.loop.attack import Sight


def find_strongest(harm: Callable[[float], float], tries: int = 16, step: float = 1.0, ratio: float = 0.8) -> float:
    """Find a factor x >= 0 for which harm(x) is large, by `tries` evaluations.

    From 0, the step doubles as long as the harm grows. After that, each try moves towards the best one by a step that
    shrinks by `ratio`, and never goes below 0.

    The phases and the defaults are those of the published code of El Mhamdi, Guerraoui, Rouault: Distributed Momentum
    for Byzantine-resilient Stochastic Gradient Descent, ICLR 2021.

    >>> round(find_strongest(lambda x: -((x - 7) ** 2), tries=100), 2)
    7.0
    """
    best, most = 0.0, harm(0.0)
    tried, growing = 0.0, True
    for _ in range(tries - 1):
        if growing or tried < best:
            tried += step
        else:
            tried = tried - step if tried >= step else tried / 2
        value = harm(tried)
        growing = growing and value > most
        if value > most:
            best, most = tried, value
        step *= 2 if growing else ratio
    return best


def find_farthest(sight: Sight, direction: Callable[[float], Tensor]) -> float:
    """Find the factor x with which forgeries direction(x) drive the server's aggregate farthest from the honest mean.

    Every attacker sends direction(factor) [d].
    """
    honest = sight.honest.mean(0)

    def distance_from_mean(factor: float) -> float:
        forgeries = direction(factor).expand_as(sight.own)
        return float((sight.outcome(forgeries) - honest).norm())

    return find_strongest(distance_from_mean)
