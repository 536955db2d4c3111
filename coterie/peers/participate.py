"""Learning without a server: one process for each participant, with data and a model that nobody else has.

Each participant runs this loop, and is its own server: it does its work of a round, leaves its payload in the mailbox,
reads the payloads of the others, and updates the common state as a server would. Where all participants hear each
other, all compute the same, which is what one process that simulates them computes.

A participant that misses a round is left out of that round's average. When it is back, it continues in the round that
the others have reached, with its own model and with the last state that it knows.
"""

from __future__ import annotations

import time
from collections.abc import Iterator, Mapping

from coterie.core import tree
from coterie.core.engine import Job, Reply
from coterie.core.errors import Mistake
from coterie.core.tree import Tree
from coterie.loop.jobs import Assignment
from coterie.loop.measure import measure_round
from coterie.loop.plan import Plan, Resume, Round
from coterie.loop.replies import check, decode, encode
from coterie.loop.round import aggregate_replies, run_jobs, update_server
from coterie.loop.store import Store
from coterie.loop.tally import Tally
from coterie.peers.mailbox import Mailbox


def participate(plan: Plan, mailbox: Mailbox, deadline: float = 60.0, resume: Resume | None = None) -> Iterator[Round]:
    """Take part in a federation without a server, yielding each round when it is complete.

    Args:
        plan: `coterie.plan` of this participant alone: its data under its id, its model, the `seed_set`. Every
            participant must have the same rng seed and rounds.
        mailbox: where the participants exchange payloads.
        deadline: seconds to wait in a round for those who took part in the last one.
        resume: continue from here; rounds that the others have run meanwhile are skipped.

    Raises:
        Mistake: the plan is not one participant's, its algorithm needs a server to weigh clients, or the mailbox is
            another run's.
    """
    me = _participant(plan)
    state = plan.to_device(resume.state) if resume else plan.algorithm.server.initial_state(None, plan.federation())
    store, elapsed, last = (resume.store, resume.elapsed, resume.round) if resume else (Store(), 0.0, 0)
    began = time.perf_counter()
    for number in range(_first_round(plan, mailbox, me, last), plan.rounds + 1):
        started, now, own, all_of_them = time.perf_counter(), plan.in_round(number), Tally(), Tally()
        reply = _work(now, number, me, state, store)
        payload, store = reply.update, store.after(number, {me: reply.state})
        own.count(reply, tree.nbytes(payload), None)
        mailbox.put(number, me, payload)
        payloads = {**mailbox.get_all(number, deadline), me: payload}
        state = _update(now, number, state, payloads, payload, all_of_them)
        seconds = time.perf_counter() - started
        measures = {**own.measures(), **measure_round(now, number, state, store)}
        down = sum(tree.nbytes(message) for sender, message in payloads.items() if sender != me)
        yield Round(
            number, seconds, elapsed + time.perf_counter() - began, all_of_them.cohort, all_of_them.reached,
            all_of_them.dropped, own.bytes_up, down, measures, state, store, now,
        )  # fmt: skip


def _participant(plan: Plan) -> str:
    """Return the one client of a participant's plan.

    Raises:
        Mistake: the plan has several clients, or its algorithm needs a server.
    """
    if len(plan.ids) != 1:
        raise Mistake(f"a participant's plan has one client, its own; this one has {len(plan.ids)}")
    if not plan.algorithm.traits.own_models or any(kind != "one" for kind in plan.algorithm.server.weighting.values()):
        raise Mistake(
            "without a server only those algorithms can run whose clients have models of their own and count alike"
        )
    return plan.ids[0]


def _first_round(plan: Plan, mailbox: Mailbox, me: str, last: int) -> int:
    """Return the round in which a participant starts that has completed `last` rounds.

    Raises:
        Mistake: the mailbox is another run's.
    """
    newest = mailbox.newest()
    if last < plan.rounds < newest:
        raise Mistake(
            f"the mailbox is in round {newest}, and this run has {plan.rounds}: give all participants the same rounds, "
            "and each run a mailbox of its own"
        )
    if last == 0 and newest > 1 and me in mailbox.senders(newest):
        raise Mistake(
            f"{me} has sent a message in round {newest} of this mailbox already, and now starts from the beginning: "
            f"give each run a mailbox of its own, or continue from what {me} has saved"
        )
    return max(last + 1, newest)


def _work(plan: Plan, number: int, me: str, state: Tree, store: Store) -> Reply:
    """Do this participant's work; return its reply, whose update is the payload that travels."""
    before = plan.client_state(store, me)
    job = Job(me, plan.architecture(me), before["algorithm"], plan.data(me), plan.seed_set, number, plan.rng_seed)
    part = {me: Assignment(job, before["up"])}
    ((_, reply),) = encode(plan, run_jobs(plan, plan.algorithm.server.broadcast(state), [part]))
    return reply


def _update(plan: Plan, number: int, state: Tree, payloads: Mapping[str, Tree], own: Tree, tally: Tally) -> Tree:
    """Return the next state, from all payloads of a round that look like one's own, in the order of their names."""
    tally.cohort = sorted(payloads)
    replies = ((sender, Reply(sender, payloads[sender], {}, {"one": 1.0}, {})) for sender in tally.cohort)
    accepted = _to_device(plan, decode(plan, check(replies, lambda sender: own, tally)))
    aggregate = aggregate_replies(plan.algorithm.server, plan.aggregator, accepted, tally)
    return state if aggregate is None else update_server(plan, number, state, aggregate, tally, len(payloads))


def _to_device(plan: Plan, replies: Iterator[Reply]) -> Iterator[Reply]:
    """Move the updates to the engine's device."""
    for reply in replies:
        yield reply._replace(update=tree.map(lambda x: x.to(plan.engine.device), reply.update))
