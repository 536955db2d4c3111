"""Learning without a server: one process for each participant, with data and a model that nobody else has.

Each participant runs this loop, and is its own server: it does its work of a round, leaves its payload in the mailbox,
reads the payloads of the others, and updates the common state as a server would. Where all participants hear each
other, all compute the same, which is what one process that simulates them computes.

A participant that misses a round is left out of that round's average. When it is back, it continues in the round that
the others have reached, with its own model and with the last state that it knows.

What arrives is judged before it is used; see `coterie.peers.message`. A round in which too few messages count for the
aggregator changes neither the common state nor the own model, as in a federation with a server.
"""

from __future__ import annotations

import time
from collections.abc import Iterator, Mapping

from coterie.core import tree
from coterie.core.engine import Job, Reply
from coterie.core.errors import Mistake
from coterie.core.tree import Tree
from coterie.loop.check_update import broken_leaf
from coterie.loop.jobs import Assignment
from coterie.loop.measure import measure_round
from coterie.loop.plan import Plan, Resume, Round
from coterie.loop.replies import decode, encode
from coterie.loop.round import aggregate_replies, next_state, run_jobs
from coterie.loop.store import Store
from coterie.loop.tally import Tally
from coterie.loop.template import Templates
from coterie.peers.mailbox import Mailbox
from coterie.peers.message import Form, Message, Unusable, form_of_round


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
    templates, next_round = Templates(), min(last + 1, plan.rounds)
    first_form = _form(plan.in_round(next_round), state, _assignment(plan, next_round, me, store), templates)
    for number in range(_first_round(plan, mailbox, me, last, first_form), plan.rounds + 1):
        started, now, own, all_of_them = time.perf_counter(), plan.in_round(number), Tally(), Tally()
        work = _assignment(now, number, me, store)
        form = _form(now, state, work, templates)
        ((_, reply),) = encode(now, run_jobs(now, now.algorithm.server.broadcast(state), [{me: work}]))
        own.count(reply, tree.nbytes(reply.update), None)
        mailbox.put(number, me, reply.update)
        messages = {**mailbox.get_all(number, deadline, form), me: _judge_own(reply, work, form)}
        after = _update(now, number, state, messages, all_of_them)
        if after is not None:
            state = after
            store = store.after(number, {me: reply.state}) if me in all_of_them.client_weights() else store
        seconds = time.perf_counter() - started
        measures = {**own.measures(), **measure_round(now, number, state, store)}
        down = sum(answer.nbytes for answer in all_of_them.answers if answer.client != me)
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


def _first_round(plan: Plan, mailbox: Mailbox, me: str, last: int, form: Form) -> int:
    """Return the round in which a participant starts that has completed `last` rounds, given the form of messages.

    Raises:
        Mistake: the mailbox is another run's.
    """
    newest = mailbox.newest(form)
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


def _assignment(plan: Plan, number: int, me: str, store: Store) -> Assignment:
    """Return this participant's work of a round."""
    before = plan.client_state(store, me)
    job = Job(me, plan.architecture(me), before["algorithm"], plan.data(me), plan.seed_set, number, plan.rng_seed)
    return Assignment(job, before["up"])


def _form(plan: Plan, state: Tree, work: Assignment, templates: Templates) -> Form:
    """Return what an honest message of a round looks like: like this participant's own payload without a step."""
    return form_of_round(plan, templates.of_round(plan, plan.algorithm.server.broadcast(state))(work))


def _judge_own(reply: Reply, work: Assignment, form: Form) -> Message:
    """Return this participant's own payload; if it, or the state to keep, cannot be used, the reason."""
    broken = broken_leaf(reply.state, {"algorithm": work.job.state, "up": work.codec_state})
    if broken is not None:
        return Unusable(f"the client's own {broken} holds numbers that are not finite")
    return form.judge(reply.update)


def _update(plan: Plan, number: int, state: Tree, messages: Mapping[str, Message], tally: Tally) -> Tree | None:
    """Return the next state from all usable messages of a round, in the order of their names; None if none follows."""
    tally.cohort = sorted(messages)
    accepted = _to_device(plan, decode(plan, _replies(messages, tally), tally))
    aggregate = aggregate_replies(plan.algorithm.server, plan.aggregator, accepted, tally)
    return None if aggregate is None else next_state(plan, number, state, aggregate, tally, tally.reached)


def _replies(messages: Mapping[str, Message], tally: Tally) -> Iterator[Reply]:
    """Count every message, and pass on the usable ones as replies."""
    for sender in tally.cohort:
        message = messages[sender]
        reply = Reply(sender, {} if isinstance(message, Unusable) else message, {}, {"one": 1.0}, {})
        tally.count(reply, tree.nbytes(reply.update), message.why if isinstance(message, Unusable) else None)
        if not isinstance(message, Unusable):
            yield reply


def _to_device(plan: Plan, replies: Iterator[Reply]) -> Iterator[Reply]:
    """Move the updates to the engine's device."""
    for reply in replies:
        yield reply._replace(update=tree.map(lambda x: x.to(plan.engine.device), reply.update))
