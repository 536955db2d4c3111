"""How strongly to attack: a line search for the factor that harms most.

Legend: f attackers, d numbers in a part of the update.
"""

from __future__ import annotations

from collections.abc import Callable

from torch import Tensor

from coterie.loop.attack import Sight


def strongest(harm: Callable[[float], float], tries: int = 16, step: float = 1.0, ratio: float = 0.8) -> float:
    """A factor x >= 0 for which harm(x) is large, found by `tries` evaluations.

    From 0 the step is doubled as long as harm grows. From then on the place that is tried moves towards the best one by
    steps that shrink by `ratio`, never below 0.

    El Mhamdi, Guerraoui, Rouault: Distributed Momentum for Byzantine-resilient Stochastic Gradient Descent, ICLR 2021,
    from whose published code the phases and the defaults are.

    >>> round(strongest(lambda x: -((x - 7) ** 2), tries=100), 2)
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


def farthest(sight: Sight, direction: Callable[[float], Tensor]) -> float:
    """The factor for which what the server makes of direction(factor) [d], sent by every attacker, lies farthest from
    the honest mean.
    """
    honest = sight.honest.mean(0)

    def harm(factor: float) -> float:
        sent = direction(factor).expand_as(sight.own)
        return float((sight.outcome(sent) - honest).norm())

    return strongest(harm)
