"""A guarantee for clients whose updates are summed in secret: what each client puts into the sum.

    q_i = round(x_i / s)                              s: the step of the grid
    x_i = D_i + N(0, v^2), v^2 = (z C)^2 / m          where = "clients"; D_i: the update, scaled down to the norm C
    x_i = D_i, scaled down to C - s sqrt(d) / 2       where = "server", which adds the noise to the opened sum

With where = "server", rounding moves an update by s sqrt(d) / 2 at most, so the norm of what is added is C at most. The
server's noise is added to a sum that is known modulo 2^b s, and the result is reduced modulo 2^b s again. So what is
released is a function of the true sum plus the noise, also if a client's garbage lets the sum wrap around. The range
leaves room for the noise: without garbage nothing wraps.

With where = "clients", the opened sum Q of n numbers costs no more than the sum of the x_i, although each of them is
rounded by itself. The density of N(0, v^2) plus a uniform number of (-s/2, s/2), times s, gives the probability of each
value of q_i. If the n characteristic functions were those of the densities, Q would have the distribution of a number y
= sum_i x_i that is rounded at random to k with the probability B_n(k - y / s), where B_n is the density of the sum of n
uniform numbers of (-1/2, 1/2); these probabilities add up to 1 for every y (B-splines are a partition of unity). That
is a function of y and of chance alone. A characteristic function of whole numbers is that of the density and its
repetitions (Poisson's summation), which are below

    r = 2 (1 + e^-10) exp(-pi^2 v^2 / (2 s^2))        together, for each client

so the characteristic functions of both distributions differ by (n + 1) r at most, and modulo 2^b the distributions by
2^(b-1) (n + 1) r in total variation, for each coordinate. Whatever wraps around is modulo 2^b in both. With v >= 10 s,
b <= 64 and n < 2^30 this is below 10^-180, so that delta grows by less than 10^-150 for all coordinates and rounds.

Legend: n clients, m that must add their noise, C bound, z noise multiplier, d numbers of an update, b bits.
"""

from __future__ import annotations

import math
from collections.abc import Mapping

from coterie.core import tree
from coterie.core.errors import Mistake
from coterie.core.tree import Tree
from coterie.loop.plan import Plan
from coterie.loop.private_client import add_share, deviations, limit_of, share_deviations
from coterie.loop.private_plan import bounds_of, clients_asked
from coterie.privacy.bounded_sum import bound
from coterie.privacy.fixed_point import FixedPoint

LEAST_STEPS = 10
"""How many steps of the grid a client's noise has at least, as its standard deviation."""
LARGEST_DRAW = 9.0
"""No draw of `coterie.privacy.noise` is so many standard deviations away from 0, so no number is out of range."""


def private_form(plan: Plan, clients: int) -> FixedPoint:
    """Return how numbers become residues under a guarantee: no number can be larger, so none is refused.

    Raises:
        Mistake: the grid is too coarse for the noise, or for the bound.
    """
    privacy, parts = plan.guarantee, plan.algorithm.server.weighting
    assert privacy is not None, "a guarantee is given"
    limits = bounds_of(privacy, parts) or dict.fromkeys(parts, limit_of(plan, {}))
    n = max(clients, 1)
    if privacy.where == "clients":
        noise = share_deviations(plan, parts)
    else:  # the range of the sum has n parts of this room
        whole = deviations(plan, bounds_of(privacy, parts), limit_of(plan, {}), clients_asked(plan), parts)
        noise = {part: deviation / n for part, deviation in whole.items()}
    largest = max(1.0, *(limits[part] + LARGEST_DRAW * noise[part] for part in parts))  # 1: the weight of a client
    form = FixedPoint(n, privacy.secure_bits, largest)
    if privacy.where == "clients":
        is_fine = min(noise.values()) >= LEAST_STEPS * form.step
    else:
        d = sum(leaf.numel() for weights in plan.initial.values() for leaf in tree.leaves(weights))
        is_fine = _rounding(form, d) <= min(limits.values()) / 100
    if not is_fine:
        raise Mistake(
            f"steps of {form.step:.3g} are too coarse for this bound and its noise; give more bits",
            key="secure_bits",
            value=privacy.secure_bits,
            table="privacy",
        )
    return form


def share_of_sum(plan: Plan, number: int, client: str, update: Tree, form: FixedPoint) -> Tree:
    """Return what a client adds to a secret sum under a guarantee, float64, before it is rounded to the grid."""
    privacy = plan.guarantee
    assert privacy is not None, "a guarantee is given"
    if privacy.where == "clients":
        return add_share(plan, number, client, update)
    bounds = bounds_of(privacy, update)
    smaller = _make_room(form, update, bounds if bounds is not None else limit_of(plan, {}))
    return bound(update, smaller)[0]


def _make_room(form: FixedPoint, update: Tree, bounds: float | Mapping[str, float]) -> float | Mapping[str, float]:
    """Return the bounds, lowered by what rounding adds to the norm at most."""
    sizes = {part: sum(leaf.numel() for leaf in tree.leaves({part: content})) for part, content in update.items()}
    if isinstance(bounds, Mapping):
        return {part: max(bounds[part] - _rounding(form, sizes[part]), 0.0) for part in update}
    return max(bounds - _rounding(form, sum(sizes.values())), 0.0)


def _rounding(form: FixedPoint, numbers: int) -> float:
    """Return the largest norm of what rounding adds to so many numbers."""
    return form.step * math.sqrt(numbers) / 2
