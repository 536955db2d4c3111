"""The rounds of a federation, one after another, as a generator.

for round in federate(plan):          # the caller's body is where to log, stop, or look inside
    print(round.round, round.test_accuracy)
"""

from __future__ import annotations

import hashlib
import time
import warnings
from collections.abc import Callable, Iterator
from dataclasses import replace
from itertools import zip_longest

from torch import Tensor

from coterie.core import tree
from coterie.core.errors import Mistake, mistakes_in
from coterie.core.examples import sizes
from coterie.core.packing import pack
from coterie.core.threads import SharedMachineWatch
from coterie.core.tree import Tree
from coterie.loop.measure import measure_round
from coterie.loop.plan import Plan, Resume, Round
from coterie.loop.private_client import STATE
from coterie.loop.private_round import initial_bound
from coterie.loop.refusals import RefusalWatch
from coterie.loop.round import one_round
from coterie.loop.secure_round import check_secure_sum, hides_updates
from coterie.loop.spill import budget_bytes
from coterie.loop.store import Store
from coterie.loop.tally import Tally
from coterie.loop.template import Templates


def warn_caller(sentence: str) -> None:
    """Warn the code that runs the rounds of `federate`."""
    warnings.warn(f"coterie: {sentence}", RuntimeWarning, stacklevel=3)  # this function, `federate`, its caller


def federate(
    plan: Plan,
    resume: Resume | None = None,
    keep_updates: bool = False,
    warn: Callable[[str], None] = warn_caller,
) -> Iterator[Round]:
    """Run a federation's rounds, yielding each when it is complete. Collective: every process calls it.

    Args:
        plan: the federation.
        resume: where a stopped run continues.
        keep_updates: whether each round carries every accepted update, which costs the memory of a whole cohort's.
        warn: gets a sentence where several rounds in a row accept no update, where outputs are not finite, and where
            other programs take the cores that this process's threads wait on.

    Raises:
        Mistake: the cohort asks for more clients than there are, or is too small for the aggregator; everyone attacks;
            or somebody has written into a round's state.
    """
    with mistakes_in("aggregation"):
        plan.aggregator.check_count(plan.cohort_size())
    plan.attackers()
    if hides_updates(plan):
        check_secure_sum(plan, keep_updates)
    _check_same_for_all(plan)
    state, store, elapsed = _initial(plan, resume)
    store.limit(budget_bytes(len(plan.ids), plan.cohort_size(), plan.team.size))
    began, templates, watch = time.perf_counter() - elapsed, Templates(), RefusalWatch()
    machine = SharedMachineWatch()
    for number in range(resume.round + 1 if resume else 1, plan.rounds + 1):
        round = _run(plan.in_round(number), number, state, store, templates, keep_updates)
        state, store = round.state, round.store
        for sentence in (*watch.complaints(round), *filter(None, [machine.complaint()])):
            warn(sentence)
        held, before = _in_reach(plan, state), _writes(plan, state)
        yield replace(round, elapsed=time.perf_counter() - began)
        replaced = any(a is not b for a, b in zip_longest(held, _in_reach(plan, state)))
        if replaced or _writes(plan, state) != before:
            raise Mistake(
                f"the state of round {number} was written into, which would change the training without a word; write "
                "into copies, such as those that round.weights() returns"
            )
        del round, held  # the state before this round would stay in memory for all of the next one


def _in_reach(plan: Plan, state: Tree) -> tuple[Tensor, ...]:
    """Return the tensors of the server's state and of the initial weights, which the caller can reach."""
    return *tree.leaves(state), *tree.leaves(plan.initial)


def _writes(plan: Plan, state: Tree) -> list[int]:
    """Return how often each tensor that the caller can reach was written into so far."""
    return [leaf._version for leaf in _in_reach(plan, state)]


def _initial(plan: Plan, resume: Resume | None) -> tuple[Tree, Store, float]:
    """Return the server's state, the clients' states and the seconds before the first round that is to run."""
    if resume is not None:
        return plan.to_device(resume.state), resume.store, resume.elapsed
    weights = next(iter(plan.initial.values())) if len(plan.initial) == 1 else None
    state = plan.algorithm.server.initial_state(weights, plan.federation())
    return {**state, **initial_bound(plan)}, Store(), 0.0


def _run(plan: Plan, number: int, state: Tree, store: Store, templates: Templates, keep_updates: bool) -> Round:
    """Run a round and measure it; drop updates that only the probe needed. Collective: every process calls it."""
    started, before = time.perf_counter(), state
    probe = plan.probe if plan.probe is not None and plan.probe.due(number, plan.rounds) else None
    tally = Tally(updates={} if keep_updates or probe else None)
    state, store = one_round(plan, number, state, store, tally, templates)
    seconds = time.perf_counter() - started
    own = {name: float(value) for name, value in plan.algorithm.server.measures(before, state).items()}
    measures = {**_measures_of_clients(plan, tally, before), **own, **measure_round(plan, number, state, store)}
    round = Round(
        number, seconds, 0.0, tally.cohort, tally.reached, tally.dropped, tally.bytes_up, tally.bytes_down,
        measures, state, store, plan, tally.updates, before, tally.client_weights(),
    )  # fmt: skip
    probed = {} if probe is None else probe(round)
    return replace(round, measures={**measures, **probed}, updates=round.updates if keep_updates else None)


def _measures_of_clients(plan: Plan, tally: Tally, before: Tree) -> dict[str, float | None]:
    """Return what the clients' logs say; under a guarantee nothing of it, and the bound where that adapts."""
    if plan.guarantee is None:
        return tally.measures()
    return {"train_loss": None} | ({"clip_norm": float(before[STATE]["clip"])} if STATE in before else {})


def _check_same_for_all(plan: Plan) -> None:
    """Check that all processes were given the same. Collective: every process calls it.

    Raises:
        Mistake: one of them was not.
    """
    if plan.team.size == 1:
        return
    weights = [plan.tasks[name].state_dict(weights) for name, weights in plan.initial.items()]
    models = [hashlib.sha256(pack(named)).hexdigest() for named in weights]
    counts = sizes(plan.clients, plan.ids[:1000]) if plan.can_count else []
    facts = (len(plan.ids), plan.ids[0], counts, plan.rounds, plan.rng_seed, plan.secret, models)
    if any(others != facts for others in plan.team.gather(facts)):
        raise Mistake(
            "the processes of this run began with different clients, rounds, rng seeds or models: give all of "
            "them the same, and call torch.manual_seed before you make a model"
        )
