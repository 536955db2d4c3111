"""What a client does for a guarantee before anything else sees its update: it bounds it, and adds a share of the noise.

    x_i = D_i + N(0, (z C)^2 / m)         D_i: the update of client i, scaled down to the norm C

m is the least number of updates with which a round counts, so their noise together suffices.

Legend: n clients that a round asks, C bound, z noise multiplier, m clients that must add their noise.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Mapping

from coterie.core import tree
from coterie.core.engine import Reply
from coterie.core.secret_draws import join_purpose
from coterie.core.tree import Tree
from coterie.loop.jobs import Assignment
from coterie.loop.plan import Plan
from coterie.loop.private_plan import bounds_of, check_parts, clients_asked, least_reached, update_multiplier
from coterie.privacy.bounded_sum import bound
from coterie.privacy.noise import add_noise

STATE = "privacy"
"""The server state's own part under an adaptive bound: {"clip": C, float64 []}. Algorithms never see it."""


def protect(plan: Plan, replies: Iterable[tuple[Assignment, Reply]]) -> Iterator[tuple[Assignment, Reply]]:
    """Where clients add the noise in the clear: bound each update and add the client's share.

    The sums of the training loss stay at the client.
    """
    privacy = plan.guarantee
    if privacy is None or privacy.where == "server":
        yield from replies
        return
    for work, reply in replies:
        check_parts(plan)
        noisy = add_share(plan, work.job.round, reply.client, reply.update)
        update = tree.map(lambda x, like: x.to(like.dtype), noisy, reply.update)
        yield work, reply._replace(update=update, logs={})


def add_share(plan: Plan, number: int, client: str, update: Tree) -> Tree:
    """Return a client's bounded update with its share of the noise, float64."""
    privacy = plan.guarantee
    assert privacy is not None, "a guarantee is given"
    bounds, limit = bounds_of(privacy, update), limit_of(plan, {})
    bounded, _ = bound(update, bounds or limit)
    return add_noise(bounded, share_deviations(plan, update), noise_key(plan, number, client))


def share_deviations(plan: Plan, parts: Mapping[str, object]) -> dict[str, float]:
    """Return the standard deviation of a client's share of the noise, for each part of its update."""
    privacy, expected = plan.guarantee, clients_asked(plan)
    assert privacy is not None, "a guarantee is given"
    whole = deviations(plan, bounds_of(privacy, parts), limit_of(plan, {}), expected, parts)
    return {part: d / math.sqrt(least_reached(privacy, expected)) for part, d in whole.items()}


def limit_of(plan: Plan, state: Tree) -> float:
    """Return C in this round; 1 where each part has a bound of its own."""
    assert plan.guarantee is not None, "a guarantee is given"
    if STATE in state:
        return float(state[STATE]["clip"])
    return plan.guarantee.clip_norm or 1.0


def deviations(
    plan: Plan, bounds: Mapping[str, float] | None, limit: float, expected: float, parts: Mapping[str, object]
) -> dict[str, float]:
    """Return the standard deviation of the noise on each part of the sum.

    Parts with bounds C_p of their own, in units of C_p, have the norm sqrt(P) together at most.
    """
    assert plan.guarantee is not None, "a guarantee is given"
    z = update_multiplier(plan.guarantee, expected)
    if bounds is None:
        return dict.fromkeys(parts, z * limit)
    return {part: z * math.sqrt(len(bounds)) * bounds[part] for part in parts}


def noise_key(plan: Plan, number: int, who: str) -> str:
    """Return the key of the noise that is added in a round, at the server or by a client."""
    return join_purpose(str(plan.secret_seed), number, who, "noise")
