"""The noise of a silo's clients, where clients add it: what it derives from, and among how many it is shared.

It derives from a secret that the silo draws when it starts and tells nobody. Two updates with the same noise would show
their difference, and the same update with noise drawn twice would be protected less than is accounted for. So the noise
follows from what updates follow from: the broadcast, and the clients that are asked with the rounds whose states they
start from. A secure sum has a purpose of its own, which no other sum has. A silo that is started again draws another
secret.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from coterie.core.digests import digest
from coterie.loop.plan import Plan
from coterie.silos.letters import Start
from coterie.silos.message import Message

MOST_CLIENTS = 2**31
"""Of a cohort."""


def with_noise_of(plan: Plan, message: Message, starts: Sequence[Start]) -> Plan:
    """Return a silo's plan with the noise for one request, and the number of clients that all silos ask.

    Args:
        plan: the silo's, in this round.
        message: the request.
        starts: the clients that it names.

    Raises:
        Unusable: the request does not say how many clients are asked.
    """
    privacy = plan.guarantee
    if privacy is None or (privacy.where == "server" and not privacy.secure_sum):
        return plan
    plan = replace(plan, all_silos_cohort=message.whole("cohort", 1, MOST_CLIENTS))
    if privacy.noise == "rng_seed":
        return plan
    facts = [plan.secret, str(message.fields.get("purpose", "")), *map(digest, message.parts), str(sorted(starts))]
    return replace(plan, secret=digest("\x1f".join(facts).encode()))
