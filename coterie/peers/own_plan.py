"""A participant's own part of a federation's plan, and which plans can do without a server."""

from __future__ import annotations

from dataclasses import replace

from coterie.core.engine import Job
from coterie.core.errors import Mistake
from coterie.loop.faults import Faults
from coterie.loop.jobs import Assignment
from coterie.loop.plan import Plan
from coterie.loop.store import Store
from coterie.peers.signed_mailbox import SignedMailbox


def own_plan(plan: Plan, me: str) -> Plan:
    """Return the plan of one participant alone: its data, and its own test data where the plan has some."""
    kept = plan.evaluation
    own = {me: kept.own[me]} if kept.own is not None and me in kept.own else None
    shares = {me: kept.shares[me]} if kept.shares is not None and me in kept.shares else None
    evaluation = replace(kept, own=own, shares=shares)
    return replace(plan, ids=(me,), clients={me: plan.clients[me]}, evaluation=evaluation)


def assignment_of(plan: Plan, number: int, me: str, store: Store) -> Assignment:
    """Return a participant's work of a round."""
    before = plan.client_state(store, me)
    job = Job(me, plan.architecture(me), before["algorithm"], plan.data(me), plan.seed_set, number, plan.rng_seed)
    return Assignment(job, before["up"])


def require_computable(plan: Plan, mailbox: SignedMailbox) -> None:
    """Refuse a plan whose server half participants cannot compute for themselves.

    Raises:
        Mistake: it is one.
    """
    if set(plan.ids) != set(mailbox.roster.keys) or plan.algorithm.traits.pooled:
        if plan.algorithm.traits.pooled:
            raise Mistake("this algorithm pools all data in one place, and participants keep theirs; choose another")
        differing = sorted(set(plan.ids) ^ set(mailbox.roster.keys))
        raise Mistake(f"the plan and the roster have other participants: {', '.join(differing[:5])}")
    simulated = [
        name
        for name, is_set in (
            ("attack", plan.attack is not None),
            ("faults", plan.faults != Faults()),
            ("probe", plan.probe is not None),
            ("available", plan.available is not None),
        )
        if is_set
    ]
    if simulated:
        raise Mistake(
            f"{simulated[0]} belongs to a simulation, in which one process sees every update; leave it out where "
            "participants train without a server"
        )
    if plan.team.size > 1:
        raise Mistake("a participant is one process; leave workers out")
