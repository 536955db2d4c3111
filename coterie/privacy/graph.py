"""Who masks with whom: everyone with everyone, or in a large cohort each client with k others.

The sparse graph is that of Bell et al., "Secure single-server aggregation with (poly)logarithmic overhead", CCS 2020:
the clients stand on a circle in random order, and each is a neighbour of the k / 2 next ones on either side. A secret
is shared among these neighbours, and t of them give it back. With a share gamma of clients that collude with the
server, and a share delta that drop out, three things can go wrong (their section 3.2):

    E1   t or more neighbours of some honest client collude       n P(H(n - 1, gamma n, k) >= t)
    E2   the honest clients that stay fall apart into groups,     n (gamma + delta)^(k / 2)
         whose sums could be told apart
    E3   fewer than t neighbours of some client stay              n P(H(n - 1, (1 - delta) n, k) < t)

H(N, m, k) is the hypergeometric number of marked ones among k drawn from N, of which m are marked. `choose_degree`
returns the smallest k, and t, for which E1 and E2 together have probability 2^-40 at most, and E3 2^-30.

t is more than half of the k + 1 shares of a secret. Each holder gives a share of the key or of the seed of a client,
never of both, so a server that tells some that the client is gone, and others that it stayed, gets t of one at most.
"""

from __future__ import annotations

import functools
import math
import random
from collections.abc import Sequence
from typing import NamedTuple

SECURITY_BITS = 40
"""The sum may be opened to more than it says with probability 2^-40 at most, in one round."""
CORRECTNESS_BITS = 30
"""A round that has enough clients fails with probability 2^-30 at most."""


class Degree(NamedTuple):
    """How many neighbours each client has, and how many shares give a secret back."""

    neighbours: int
    needed: int


@functools.lru_cache(64)
def choose_degree(clients: int, needed: int, colluding: float = 1 / 3) -> Degree:
    """Return how many neighbours each client of a cohort has.

    Args:
        clients: n, that mask.
        needed: how many of them must stay until the end.
        colluding: gamma, the share of the clients of which the server may know all.

    Returns:
        All others, and `needed` shares, where the sparse graph would need as many. That meets E1 for fewer than
        `needed` colluding clients, and E2 and E3 for certain.
    """
    dropped = 1 - needed / clients
    bad, staying = math.floor(colluding * clients), needed - 1  # of the others, at least
    for k in range(2, clients - 1, 2):
        apart, half = clients * min(1.0, colluding + dropped) ** (k // 2), k // 2
        likely_fails = clients * _tail(clients - 1, staying, k, half, half) > 2.0**-CORRECTNESS_BITS
        if apart >= 2.0**-SECURITY_BITS or likely_fails:
            continue
        t = max(_fewest_shares(clients, k, bad, 2.0**-SECURITY_BITS - apart), half + 1)
        if clients * _tail(clients - 1, staying, k, 0, t - 1) <= 2.0**-CORRECTNESS_BITS:
            return Degree(k, t)
    return Degree(clients - 1, needed)


def _fewest_shares(clients: int, k: int, bad: int, allowed: float) -> int:
    """Return the smallest t for which E1 has the probability allowed; k + 1 where none has."""
    low, high = 1, k + 1
    while low < high:
        t = (low + high) // 2
        if clients * _tail(clients - 1, bad, k, t, k) <= allowed:
            high = t
        else:
            low = t + 1
    return low


def _tail(total: int, marked: int, drawn: int, least: int, most: int) -> float:
    """Return the probability that from `least` to `most` of those drawn are marked, each term in float64."""
    return sum(
        math.exp(_log_choose(marked, x) + _log_choose(total - marked, drawn - x) - _log_choose(total, drawn))
        for x in range(max(least, 0, drawn - (total - marked)), min(most, marked, drawn) + 1)
    )


def _log_choose(n: int, k: int) -> float:
    """Return the logarithm of n over k."""
    return math.lgamma(n + 1) - math.lgamma(k + 1) - math.lgamma(n - k + 1)


def draw_neighbours(clients: Sequence[str], degree: int, source: random.Random) -> dict[str, list[str]]:
    """Return client -> its neighbours, in the order of `clients`: all others, or `degree` on a random circle."""
    if degree >= len(clients) - 1:
        return {client: [other for other in clients if other != client] for client in clients}
    circle = source.sample(list(clients), len(clients))
    place = {client: k for k, client in enumerate(clients)}
    steps = [step for half in range(1, degree // 2 + 1) for step in (half, -half)]
    return {
        client: sorted((circle[(k + step) % len(circle)] for step in steps), key=place.__getitem__)
        for k, client in enumerate(circle)
    }
