"""The graph of a large cohort: its degree from the three probabilities, and its shape."""

import math
import random

import pytest
from scipy.stats import hypergeom

from coterie.privacy.graph import choose_degree, draw_neighbours
from coterie.privacy.masking_server import find_quorum


@pytest.mark.parametrize(("clients", "threshold", "colluding"), [(300, 2 / 3, 1 / 3), (500, 0.9, 0.1)])
def test_the_degree_meets_the_three_bounds_and_the_next_smaller_one_does_not(clients, threshold, colluding):
    """SciPy's hypergeometric distribution is the oracle."""
    needed = find_quorum(clients, threshold)
    k, t = choose_degree(clients, needed, colluding)
    assert k < clients - 1
    assert k % 2 == 0

    def meets(k, t):
        bad = math.floor(colluding * clients)
        opened = clients * hypergeom.sf(t - 1, clients - 1, bad, k)
        apart = clients * (colluding + 1 - needed / clients) ** (k // 2)
        fails = clients * hypergeom.cdf(t - 1, clients - 1, needed - 1, k)
        return opened + apart <= 2.0**-40 * (1 + 1e-6) and fails <= 2.0**-30 * (1 + 1e-6) and 2 * t > k + 1

    assert meets(k, t)
    assert not any(meets(k - 2, s) for s in range(1, k - 1))


@pytest.mark.parametrize("threshold", [0.5, 0.6, 2 / 3, 0.9])
def test_shares_of_one_secret_never_suffice_twice(threshold):
    """A server that lies to some gets t shares of the key from them, or t of the seed from the others, never both."""
    for clients in (3, 4, 10, 171, 200, 500, 1000, 10_000):
        k, t = choose_degree(clients, find_quorum(clients, threshold))
        assert k + 1 < 2 * t <= 2 * (k + 1)


def test_a_small_cohort_masks_with_everyone():
    for clients in (3, 10, 100):
        assert choose_degree(clients, find_quorum(clients)) == (clients - 1, find_quorum(clients))


def test_neighbours_are_mutual_and_as_many_as_wanted():
    names = [str(k) for k in range(50)]
    near = draw_neighbours(names, 8, random.Random(1))
    assert all(len(set(near[a])) == 8 and a not in near[a] for a in names)
    assert all(a in near[b] for a in names for b in near[a])
    everyone = draw_neighbours(names, 49, random.Random(1))
    assert all(len(everyone[a]) == 49 for a in names)
