"""One round: the clients work, their replies travel, and the aggregate moves the server's state.

    B        = broadcast(S)
    U_i, C_i = the work of each client i of the cohort          `run_jobs`
    U        = the aggregate of the U_i that arrive and count   `aggregate_replies`
    S        = update(S, U, info)                               `next_state`

What happens to a reply on its way to the server stands in `coterie.loop.replies`. In a plain federation, without a
codec, faults and attackers, every reply arrives unchanged.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from typing import Any

from torch import Tensor

from coterie.core import rng
from coterie.core.aggregators import Aggregator
from coterie.core.algorithm import RoundInfo, ServerHalf
from coterie.core.engine import Reply, seed_set_batch
from coterie.core.errors import Mistake
from coterie.core.tree import Tree
from coterie.loop.check_update import broken_leaf
from coterie.loop.jobs import Assignment, has_states, jobs_of_cohort, return_states, run_jobs
from coterie.loop.plan import Plan
from coterie.loop.private_client import protect
from coterie.loop.private_round import aggregate_privately, mend_variances, private_info, release_sum, without_bound
from coterie.loop.replies import check, corrupt, decode, encode, forge, inspect
from coterie.loop.secure_round import aggregate_in_secret, fixed_point, hides_updates
from coterie.loop.secure_work import SecureWork, SimulatedSecureWork
from coterie.loop.spill import StoredTree
from coterie.loop.store import Store
from coterie.loop.tally import Tally
from coterie.loop.template import Templates
from coterie.processes.merge import aggregate_of_all, describe_taken
from coterie.processes.team import ALONE, Team


def one_round(
    plan: Plan, number: int, state: Tree, store: Store, tally: Tally, templates: Templates
) -> tuple[Tree, Store]:
    """Run a round; return the new server state and the store with the clients' new states.

    The old ones are not changed. A round in which nothing valid came back, or too little for the aggregator, returns
    them, unless a guarantee lets the noise alone count. So does one whose aggregate or new state would not be finite.
    Collective: every process calls it; the processes share the clients' work.
    """
    states, known, own = dict[str, StoredTree](), without_bound(state), dict[str, Any]()
    broadcast = plan.algorithm.server.broadcast(known)
    if hides_updates(plan):
        hidden = secure_work(plan, number, broadcast, store, tally)
        template_of = templates.of_round(plan, broadcast)
        aggregate = aggregate_in_secret(
            plan, number, hidden, template_of, tally, lambda replies: keep(replies, store, states, tally)
        )
        if aggregate is not None and plan.guarantee is not None:
            modulus = fixed_point(plan, len(tally.cohort)).modulus
            aggregate, own = release_sum(plan, number, state, broadcast, aggregate, modulus=modulus)
    else:
        replies = accept_replies(plan, number, broadcast, store, tally, templates, states)
        if plan.guarantee is None:
            server, keys = plan.algorithm.server, _keys(plan, number)
            aggregate = aggregate_replies(server, plan.aggregator, replies, tally, keys, plan.team)
        else:
            aggregate, own = aggregate_privately(plan, number, state, broadcast, replies, tally)
    is_told = plan.guarantee is None  # otherwise how many answered must not decide whether the noise is added
    if is_told and plan.workplace is not None and tally.reached < plan.workplace.min_clients:
        tally.reject(f"only {tally.reached} updates counted, and a round needs {plan.workplace.min_clients}")
        aggregate = None
    after = None if aggregate is None else next_state(plan, number, known, aggregate, tally, len(plan.ids))
    if after is None:
        return state, store
    return {**after, **own}, store.after(number, return_states(plan, store, states, tally), has_states(tally))


def accept_replies(
    plan: Plan,
    number: int,
    broadcast: Tree,
    store: Store,
    tally: Tally,
    templates: Templates,
    states: dict[str, StoredTree],
) -> Iterator[Reply]:
    """Return a round's replies that count, as they come. Clients' new states are put into `states`.

    Collective: every process calls it.
    """
    payloads = corrupt(plan, work(plan, number, broadcast, store, tally))
    checked = check(payloads, templates.of_round(plan, broadcast), tally, _state_before)
    accepted = decode(plan, checked, tally)
    forged = forge(plan, number, accepted, tally.cohort)
    return keep(inspect(plan, forged, tally), store, states, tally)


def secure_work(plan: Plan, number: int, broadcast: Tree, store: Store, tally: Tally) -> SecureWork:
    """Draw the cohort; return where its clients work, none of whose updates is seen."""
    if plan.workplace is not None:
        return plan.workplace.secure_work(plan, number, broadcast, store, tally)
    return SimulatedSecureWork(plan, number, broadcast, store, tally)


def work(plan: Plan, number: int, broadcast: Tree, store: Store, tally: Tally) -> Iterator[tuple[Assignment, Reply]]:
    """Draw the cohort; return its replies, encoded, each with the work that it answers.

    Collective: every process calls it; what it returns is not.
    """
    if plan.workplace is not None:
        return plan.workplace.work(plan, number, broadcast, store, tally)
    parts = jobs_of_cohort(plan, number, broadcast, store, tally)
    return encode(plan, protect(plan, run_jobs(plan, broadcast, parts)))


def keep(replies: Iterable[Reply], store: Store, states: dict[str, StoredTree], tally: Tally) -> Iterator[Reply]:
    """Pass the replies on, and keep their clients' new states and, if the tally wants them, their updates."""
    for reply in replies:
        if any(reply.state.values()):
            states[reply.client] = store.hold(reply.state)
        if tally.updates is not None:
            tally.updates[reply.client] = reply.update
        yield reply
        del reply


def aggregate_replies(
    server: ServerHalf,
    chosen: Aggregator,
    replies: Iterable[Reply],
    tally: Tally,
    keys: Callable[[str], Tensor] | None = None,
    team: Team = ALONE,
) -> Tree | None:
    """Return the aggregate of a round's replies, part by part. Collective: every process calls it.

    Args:
        server: says how each part of an update is weighted and aggregated.
        chosen: the aggregator that the user chose.
        replies: those that count, as they come; of this process.
        tally: what was counted; it gets what the other processes counted.
        keys: part -> key for aggregators that draw, int64 [].
        team: the processes of the run.

    Returns:
        The aggregate, or None if no reply counts, or too few for an aggregator. It could not tell the honest updates
        from the others then.
    """
    rules = {part: server.aggregator(part, chosen) for part in server.weighting}
    totals = {part: rule.accumulator(keys(part) if keys else None) for part, rule in rules.items()}
    place = {client: k for k, client in enumerate(tally.cohort)}
    for reply in replies:
        for part in reply.update:
            totals[part].add(reply.update[part], reply.weighting[server.weighting[part]], place[reply.client])
        del reply
    notes = tally.merge(team, {part: describe_taken(total) for part, total in totals.items()})
    _reject_too_few(rules.values(), tally)
    if not tally.reached:
        return None
    taken = {part: [note[part] for note in notes if note is not None] for part in totals}
    return {part: aggregate_of_all(team, total, taken[part]) for part, total in totals.items()}


def _reject_too_few(rules: Iterable[Aggregator], tally: Tally) -> None:
    """Let no reply count if there are too few for an aggregator."""
    try:
        for rule in rules if tally.reached else ():
            rule.check_count(tally.reached)
    except Mistake as error:
        tally.reject(f"only {tally.reached} updates arrived: {error.in_table('aggregation')}")


def _state_before(work: Assignment) -> Tree:
    """Return a client's state before its work, in the form of the state that its reply has."""
    return {"algorithm": work.job.state, "up": work.codec_state}


def next_state(plan: Plan, number: int, state: Tree, aggregate: Tree, tally: Tally, population: int) -> Tree | None:
    """Return the server's state after a round; None, with no reply counted, if it or the aggregate is not finite.

    Finite updates can have a mean that overflows, and a finite mean can overflow the server's optimiser.
    """
    broken = broken_leaf(aggregate, {})
    if broken is not None:
        tally.reject(f"the aggregate is not finite in {broken}")
        return None
    key = rng.key(plan.rng_seed, number, "server").to(plan.engine.device)
    seed_set = seed_set_batch(plan.seed_set, plan.engine)
    info = RoundInfo(number, tally.reached, population, tally.weighting(), key, seed_set)
    info = info if plan.guarantee is None else private_info(plan, info)
    after = plan.algorithm.server.update(state, aggregate, info)
    after = after if plan.guarantee is None else mend_variances(plan, state, after)
    broken = broken_leaf(after, state)
    if broken is not None:
        tally.reject(f"the server's own {broken} would not be finite")
        return None
    return after


def _keys(plan: Plan, number: int) -> Callable[[str], Tensor]:
    """Return a function: part of the update -> the round's key for aggregators that draw."""
    return lambda part: rng.key(plan.rng_seed, number, "aggregation", part)
