"""Learning without a server: one process for each participant, with data and a model that nobody else has.

Each participant runs this loop, and plays the server for itself: it takes part in a round, leaves its message in the
mailbox, reads what the others left, and makes the next state of all from that as a server would. Where everyone hears
everyone, all compute the same, which is what one process that simulates them computes.

A participant that is missed in a round is left out of that round's average. When it is back it goes on in the round in
which the others are, with its own model and with what it last heard.
"""

from __future__ import annotations

import time
from collections.abc import Iterator, Mapping

from coterie.core import rng, tree
from coterie.core.algorithm import RoundInfo
from coterie.core.engine import Job
from coterie.core.errors import Mistake
from coterie.core.tree import Tree
from coterie.loop import check_update
from coterie.loop.accumulators import accumulator
from coterie.loop.measure import measured
from coterie.loop.plan import Plan, Resume, Round
from coterie.loop.store import Store
from coterie.loop.tally import Tally
from coterie.peers.mailbox import Mailbox


def participate(plan: Plan, mailbox: Mailbox, deadline: float = 60.0, resume: Resume | None = None) -> Iterator[Round]:
    """Take part in a federation without a server, yielding each round when it is complete.

    Args:
        plan: `coterie.plan` of this participant alone: its data under its id, its model, the `seed_set`. Every
            participant must have the same rng seed and rounds.
        mailbox: where the others are met.
        deadline: seconds to wait in a round for those who were there in the last one.
        resume: continue from here; rounds that the others ran meanwhile are skipped.

    Raises:
        Mistake: the plan is not one participant's, its algorithm needs a server to weigh clients, or the mailbox is
            another run's.
    """
    me = _participant(plan)
    state = plan.placed(resume.state) if resume else plan.algorithm.server.initial_state(None, plan.federation())
    store, elapsed, last = (resume.store, resume.elapsed, resume.round) if resume else (Store(), 0.0, 0)
    began = time.perf_counter()
    for number in range(_begins(plan, mailbox, me, last), plan.rounds + 1):
        started, now, tally = time.perf_counter(), plan.at(number), Tally()
        wire, store = _took_part(now, number, me, state, store, tally)
        mailbox.put(number, me, wire)
        messages = {**mailbox.get_all(number, deadline), me: wire}
        state = _heard(now, state, number, messages, wire, tally)
        seconds = time.perf_counter() - started
        measures = {**tally.measures(), **measured(now, number, state, store)}
        down = sum(tree.nbytes(message) for who, message in messages.items() if who != me)
        yield Round(
            number, seconds, elapsed + time.perf_counter() - began, sorted(messages), len(messages) - len(tally.silent),
            tally.silent, tree.nbytes(wire), down, measures, state, store, now,
        )  # fmt: skip


def _participant(plan: Plan) -> str:
    """Whose plan it is."""
    if len(plan.ids) != 1:
        raise Mistake(f"a participant's plan has one client, its own; this one has {len(plan.ids)}")
    if not plan.algorithm.traits.own_models or any(kind != "one" for kind in plan.algorithm.server.weighting.values()):
        raise Mistake(
            "without a server only those algorithms can run whose clients have models of their own and count alike"
        )
    return plan.ids[0]


def _begins(plan: Plan, mailbox: Mailbox, me: str, last: int) -> int:
    """The round in which a participant begins that has completed `last` rounds."""
    newest = mailbox.newest()
    if last < plan.rounds < newest:
        raise Mistake(
            f"the mailbox is in round {newest}, and this run has {plan.rounds}: give all participants the same rounds, "
            "and each run a mailbox of its own"
        )
    if last == 0 and newest > 1 and me in mailbox.spoke(newest):
        raise Mistake(
            f"{me} has spoken in round {newest} of this mailbox already, and now begins anew: give each run a mailbox "
            f"of its own, or go on from what {me} has saved"
        )
    return max(last + 1, newest)


def _took_part(plan: Plan, number: int, me: str, state: Tree, store: Store, tally: Tally) -> tuple[Tree, Store]:
    """This participant's work: its message as it travels, and what it keeps."""
    kept = plan.client_state(store, me)
    job = Job(me, plan.architecture(me), kept["algorithm"], plan.data(me), plan.seed_set, number, plan.rng_seed)
    reply = next(iter(plan.engine.run(plan.algorithms, plan.algorithm.server.broadcast(state), [job])))
    key = rng.key(plan.rng_seed, number, me, "up")
    wire, up = plan.codec.encode(reply.update, kept["up"] or plan.codec.init(reply.update), key)
    reply = reply._replace(state={"algorithm": reply.state, "up": up})
    tally.count(reply, tree.nbytes(wire), None)
    return wire, store.after(number, {me: reply.state})


def _heard(plan: Plan, state: Tree, number: int, messages: Mapping[str, Tree], mine: Tree, tally: Tally) -> Tree:
    """The next state, from all messages of a round that look like one's own, in the order of their names."""
    algorithm, reached = plan.algorithm, 0
    rules = {part: algorithm.server.aggregator(part, plan.aggregator) for part in algorithm.server.weighting}
    sums = {name: accumulator(rule) for name, rule in rules.items()}
    for who, wire in sorted(messages.items()):
        wrong = check_update.problem(wire, 1.0, mine)
        if wrong is not None:
            tally.silent.append({"client": who, "why": wrong})
            continue
        update = tree.map(lambda x: x.to(plan.engine.device), plan.codec.decode(wire))
        reached += 1
        for name, subtree in update.items():
            sums[name].add(subtree, 1.0, reached)
    if not reached:
        return state
    info = RoundInfo(number, reached, len(messages), {"one": float(reached)})
    return algorithm.server.update(state, {name: total.result() for name, total in sums.items()}, info)
