"""Statistics of BatchNorm layers under a guarantee for clients: bounded, noised, and mended.

Three stages need every client's own statistics, so here they become two moments about the running (M, V), in its units:

    a_i = (mu_i - M) / sqrt(V + e)      q_i = (s_i + (mu_i - M)^2 - V) / (V + e)

Both are 0 for a client whose batches look as (M, V) says. Their means over clients, a and q, give back the mean and the
variance of all clients' values with every client counted alike:

    mu = M + a sqrt(V + e)              s = max(V + q (V + e) - (mu - M)^2, 0)

since the mean of s_i + (mu_i - M)^2 is the second moment about M of a mixture of clients. Noise can make s negative; it
then becomes 0, of which the server takes a share alone (`statistics.move`).
"""

from __future__ import annotations

from coterie.algorithms.batchnorm.statistics import EPS, MOMENTS
from coterie.core import tree
from coterie.core.algorithm import PrivatePart
from coterie.core.tree import Tree

MANY = 1e6
"""How many values are said to have passed a layer: their true number depends on clients' data."""


def _difference(sent: Tree, broadcast: Tree) -> Tree:
    """Return the moments a_i and q_i of a client's statistics, and its other parts unchanged."""
    old = broadcast["statistics"]
    moved = tree.sub(sent["mean"], old["mean"])
    unit = tree.map(lambda v: v.clamp(min=0) + EPS, old["var"])
    first = tree.map(lambda d, u: d / u.sqrt(), moved, unit)
    second = tree.map(lambda s, d, v, u: (s + d**2 - v) / u, sent["var"], moved, old["var"], unit)
    return {"first": first, "second": second, **{part: sent[part] for part in sent if part not in MOMENTS}}


def _restore(mean: Tree, broadcast: Tree) -> Tree:
    """Return pooled statistics, as `statistics.three_stages` gives them, from the mean moments."""
    old = broadcast["statistics"]
    unit = tree.map(lambda v: v.clamp(min=0) + EPS, old["var"])
    pooled = tree.map(lambda m, a, u: m + a * u.sqrt(), old["mean"], mean["first"], unit)
    within = tree.map(
        lambda v, q, u, a: (v + q * u - a**2 * u).clamp(min=0), old["var"], mean["second"], unit, mean["first"]
    )
    number = tree.map(lambda m: m.new_tensor(MANY), old["mean"])
    other = {part: value for part, value in mean.items() if part not in ("first", "second")}
    return {"mean": pooled, "within": within, "between": tree.zeros_like(within), "number": number, **other}


PRIVATE_STATISTICS = PrivatePart(_difference, _restore)
"""Of the part "statistics" of an algorithm whose broadcast has (M, V) under that name."""
