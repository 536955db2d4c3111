"""The loop: rounds as they really are, one after another, as a generator.

for round in federate(plan):          # the caller's body is where to log, stop, or look inside
    print(round.round, round.test_accuracy)
"""

from __future__ import annotations

import hashlib
import time
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import replace
from typing import get_args

from torch import Tensor

from coterie.core import rng, tree
from coterie.core.aggregators import Aggregator
from coterie.core.algorithm import RoundInfo, Weighting
from coterie.core.engine import Job, Reply, context, whole
from coterie.core.errors import Mistake
from coterie.core.packing import pack
from coterie.core.tree import Tree
from coterie.loop import check_update, faults
from coterie.loop.accumulators import accumulator
from coterie.loop.jobs import Asked, ask, brought_home
from coterie.loop.measure import measured
from coterie.loop.plan import Plan, Resume, Round
from coterie.loop.spill import Held, budget
from coterie.loop.store import Store
from coterie.loop.tally import Tally
from coterie.processes.team import all_to_all


def federate(plan: Plan, resume: Resume | None = None, keep_updates: bool = False) -> Iterator[Round]:
    """Run a federation's rounds, yielding each when it is complete.

    With `keep_updates` each round carries every accepted update, which costs the memory of a whole cohort's.

    Raises:
        Mistake: the cohort asks for more clients than there are, or is too small for the aggregator; everyone attacks.
    """
    plan.aggregator.check_count(plan.cohort.count(len(plan.ids)))
    plan.attackers()
    _same_for_all(plan)
    whole = next(iter(plan.initial.values())) if len(plan.initial) == 1 else None
    state = plan.placed(resume.state) if resume else plan.algorithm.server.initial_state(whole, plan.federation())
    store, before = (resume.store, resume.elapsed) if resume else (Store(), 0.0)
    store.limit(budget(len(plan.ids), plan.cohort.count(len(plan.ids)), plan.team.size))
    began = time.perf_counter() - before
    for number in range(resume.round + 1 if resume else 1, plan.rounds + 1):
        round = _measured(plan.at(number), number, state, store, keep_updates, began)
        state, store = round.state, round.store
        yield round


def _measured(plan: Plan, number: int, state: Tree, store: Store, keep_updates: bool, began: float) -> Round:
    """One round and what it measured, evaluation and probe included. Updates that only the probe needed are let go."""
    started, before = time.perf_counter(), state
    probe = plan.probe if plan.probe is not None and plan.probe.due(number, plan.rounds) else None
    tally = Tally(updates={} if keep_updates or probe else None)
    state, store = one_round(plan, number, state, store, tally)
    seconds = time.perf_counter() - started
    moved = {name: float(value) for name, value in plan.algorithm.server.measures(before, state).items()}
    measures = {**tally.measures(), **moved, **measured(plan, number, state, store)}
    round = Round(
        number, seconds, 0.0, tally.cohort, tally.reached, tally.dropped, tally.bytes_up, tally.bytes_down,
        measures, state, store, plan, tally.updates, before, tally.client_weights(),
    )  # fmt: skip
    probed = {} if probe is None else probe(round)
    return replace(
        round,
        elapsed=time.perf_counter() - began,
        measures={**measures, **probed},
        updates=round.updates if keep_updates else None,
    )


def one_round(plan: Plan, number: int, state: Tree, store: Store, tally: Tally) -> tuple[Tree, Store]:
    """One round at the server: ask the cohort, check what comes back, aggregate, update. Returns the new server state
    and the clients' new states; neither of the old ones is changed.

    A round in which nothing valid came back, or too little for the aggregator, leaves both as they were. In a team
    every member does all of this, but for the clients' work, which is shared.
    """
    algorithm = plan.algorithm
    broadcast = algorithm.server.broadcast(state)
    kept: dict[str, Held] = {}
    parts = ask(plan, number, broadcast, store, tally)
    place = {client: k for k, client in enumerate(tally.cohort)}
    rules = {part: algorithm.server.aggregator(part, plan.aggregator) for part in algorithm.server.weighting}
    sums = {name: accumulator(rule, _key(plan, number, name)) for name, rule in rules.items()}
    accepted = _accepted(plan, broadcast, parts, tally)
    for received in accepted if plan.attack is None else _attacked(plan, number, list(accepted), rules, tally.cohort):
        for name, subtree in received.update.items():
            sums[name].add(subtree, received.weighting[algorithm.server.weighting[name]], place[received.client])
        if any(received.state.values()):
            kept[received.client] = store.hold(received.state)
        if tally.updates is not None:
            tally.updates[received.client] = received.update
    tally.merge(plan.team)
    _enough(rules.values(), tally)
    if not tally.reached:
        return state, store
    key, seed_set = rng.key(plan.rng_seed, number, "server").to(plan.engine.device), whole(plan.seed_set, plan.engine)
    info = RoundInfo(number, tally.reached, len(plan.ids), tally.weighting(), key, seed_set)
    aggregate = {name: total.result(plan.team) for name, total in sums.items()}
    return algorithm.server.update(state, aggregate, info), store.after(number, brought_home(plan, store, kept, tally))


def _enough(rules: Iterable[Aggregator], tally: Tally) -> None:
    """Let no update count where too few came back for an aggregator: it cannot tell the honest from the others then."""
    try:
        for rule in rules if tally.reached else ():
            rule.check_count(tally.reached)
    except Mistake as error:
        tally.reject(f"only {tally.reached} updates arrived: {error}")


def _key(plan: Plan, number: int, name: str) -> Tensor:
    return rng.key(plan.rng_seed, number, "aggregation", name)


def _attacked(
    plan: Plan, number: int, mine: list[Reply], rules: Mapping[str, Aggregator], cohort: Sequence[str]
) -> Iterable[Reply]:
    """The replies with what attackers make of theirs, who see everyone's. Collective."""
    assert plan.attack is not None
    own = {reply.client: reply for reply in mine}
    everyones = own if plan.team.size == 1 else {**_others(plan, mine), **own}
    replies = [everyones[client] for client in cohort if client in everyones]
    key = rng.key(plan.rng_seed, number, "attack")
    forged = plan.attack.forged(replies, plan.attackers(), rules, plan.algorithm.server.weighting, key)
    return (reply for reply in forged if reply.client in own)


def _others(plan: Plan, mine: list[Reply]) -> dict[str, Reply]:
    """Every member's replies, without states and logs. Collective."""
    updates = all_to_all(plan.team, [{reply.client: reply.update for reply in mine}] * plan.team.size)
    weights = {c: w for part in plan.team.gather([(r.client, r.weighting) for r in mine]) for c, w in part}
    placed = tree.map(lambda x: x.to(plan.engine.device), updates)
    return {client: Reply(client, update, {}, weights[client], {}) for client, update in placed.items()}


def _accepted(plan: Plan, broadcast: Tree, parts: Iterable[Mapping[str, Asked]], tally: Tally) -> Iterator[Reply]:
    """The clients' replies as the server understands them, after the wire; what cannot be used is noted instead."""
    templates: dict[str, Tree] = {}
    for asked, reply in _replies(plan, broadcast, parts):
        if asked.job.architecture not in templates:
            templates[asked.job.architecture] = _template(plan, broadcast, asked.job)
        wire, weight, kept = _sent(plan, asked.job, reply, asked.codec_state)
        wrong = check_update.problem(wire, weight, templates[asked.job.architecture])
        received = reply._replace(state={"algorithm": reply.state, "up": kept})
        tally.count(received, tree.nbytes(wire), wrong)
        if wrong is None:
            yield received._replace(update=plan.codec.decode(wire))


def _replies(plan: Plan, broadcast: Tree, parts: Iterable[Mapping[str, Asked]]) -> Iterator[tuple[Asked, Reply]]:
    for part in parts:
        for reply in plan.engine.run(plan.algorithms, broadcast, [asked.job for asked in part.values()]):
            yield part[reply.client], reply


def _sent(plan: Plan, job: Job, reply: Reply, up: Tree) -> tuple[Tree, float, Tree]:
    """What arrives at the server: the message and its weight; and what the transform keeps at the client."""
    purpose = (plan.rng_seed, job.round, job.client)
    wire, kept = _encoded(plan, reply.update, up, rng.key(*purpose, "up"))
    weight = reply.weighting["examples"]
    if plan.faults.of(*purpose) == "corrupt":
        wire, weight = faults.corrupted(wire, weight, *purpose)
    return wire, weight, kept


def _encoded(plan: Plan, update: Tree, state: Tree, key: Tensor) -> tuple[Tree, Tree]:
    return plan.codec.encode(update, state or plan.codec.init(update), key)


def _template(plan: Plan, broadcast: Tree, job: Job) -> Tree:
    """What an honest message of this round looks like: the update of a client that took no step.

    Raises:
        Mistake: the algorithm's `finish` and its `weights` do not name the same parts, or a weight is none.
    """
    algorithm = plan.algorithms[job.architecture]
    ctx = context(algorithm, job, 1, plan.engine)
    carry = tree.clone(algorithm.client.start(broadcast, job.state, ctx))
    update, _ = algorithm.client.finish(broadcast, carry, ctx)
    if update.keys() != algorithm.server.weighting.keys():
        raise Mistake(
            f"the algorithm's update has the parts {sorted(update)} but it names weights for "
            f"{sorted(algorithm.server.weighting)}; name one weight for each part"
        )
    for part, weight in algorithm.server.weighting.items():
        if weight not in get_args(Weighting):
            kinds = ", ".join(get_args(Weighting))
            raise Mistake(f'the algorithm names the weight "{weight}" for its part {part}; it must be one of {kinds}')
    return _encoded(plan, update, {}, rng.key("template"))[0]


def _same_for_all(plan: Plan) -> None:
    """Every member of a team must have been given the same.

    Raises:
        Mistake: one was not.
    """
    if plan.team.size > 1:
        whole = [plan.tasks[name].state_dict(weights) for name, weights in plan.initial.items()]
        models = [hashlib.sha256(pack(named)).hexdigest() for named in whole]
        facts = (len(plan.ids), plan.ids[0], plan.rounds, plan.rng_seed, models)
        if any(theirs != facts for theirs in plan.team.gather(facts)):
            raise Mistake(
                "the processes of this run began with different clients, rounds, rng seeds or models: give all of "
                "them the same, and call torch.manual_seed before you make a model"
            )
