"""What follows from the letters of a round: the arithmetic of a server, which every participant does for itself."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import partial

from coterie.core import rng, tree
from coterie.core.engine import Reply
from coterie.core.packing import unpack
from coterie.core.tree import Tree
from coterie.loop.plan import Plan
from coterie.loop.replies import decode
from coterie.loop.round import aggregate_replies, next_state
from coterie.loop.tally import Tally
from coterie.peers.letter import Letter
from coterie.peers.message import Form, Message, Unusable

RELATIVE_ROUNDING = 1e-2
"""How far two states of one round may differ, as a part of what the round has changed. Processors round differently,
and a server's optimiser that divides by small numbers makes more of it."""

WEIGHTS_ROUNDING = 1e-5
"""How far they may differ, as a part of the weights."""


@dataclass(frozen=True)
class Outcome:
    """The common state after a round, and what was counted in it."""

    state: Tree
    tally: Tally


def next_common_state(
    now: Plan,
    number: int,
    state: Tree,
    cohort: list[str],
    letters: Mapping[str, Letter],
    reasons: Mapping[str, str],
    form: Form,
) -> Outcome:
    """Return the state after a round, from the letters that were decided on, in the order of the cohort.

    Args:
        now: the plan in this round, with all participants as `ids`.
        number: the round.
        state: before it.
        cohort: who was asked.
        letters: of those who count, unless a letter cannot be used. Which cannot depends on its bytes alone.
        reasons: why the others do not count.
        form: what an honest update looks like.
    """
    tally = Tally(cohort=cohort, silent=[{"client": name, "why": why} for name, why in reasons.items()])
    accepted = _to_device(now, decode(now, _replies(letters, tally, form), tally))
    keys = partial(rng.key, now.rng_seed, number, "aggregation")
    aggregate = aggregate_replies(now.algorithm.server, now.aggregator, accepted, tally, keys)
    after = None if aggregate is None else next_state(now, number, state, aggregate, tally, len(now.ids))
    return Outcome(state if after is None else after, tally)


def _replies(letters: Mapping[str, Letter], tally: Tally, form: Form) -> Iterator[Reply]:
    """Count every letter, and pass on the usable ones as replies."""
    for sender in tally.cohort:
        if sender not in letters:
            continue
        update = _update(letters[sender], form)
        weighting = _weighting(letters[sender])
        wrong = update.why if isinstance(update, Unusable) else None
        if wrong is None and weighting is None:
            wrong = "weighs itself with what is not a positive number"
        usable = {} if isinstance(update, Unusable) else update
        reply = Reply(sender, usable, {}, weighting or {}, {})  # type: ignore[arg-type]
        tally.count(reply, len(letters[sender].body), wrong)
        if wrong is None:
            yield reply


def _update(letter: Letter, form: Form) -> Message:
    """Return the payload in a letter, or why there is none."""
    why = letter.facts.get("why")
    return Unusable(str(why)[:200]) if why is not None else form.read(letter.body)


def _weighting(letter: Letter) -> dict[str, float] | None:
    """Return how much a letter says that its update counts; None if that cannot be."""
    found = letter.facts.get("weighting")
    if not isinstance(found, dict) or found.keys() != {"examples", "processed", "one"} or found["one"] != 1.0:
        return None
    right = all(type(x) in (int, float) and math.isfinite(x) and x > 0 for x in found.values())
    return {kind: float(value) for kind, value in found.items()} if right else None


def _to_device(plan: Plan, replies: Iterator[Reply]) -> Iterator[Reply]:
    """Move the updates to the engine's device."""
    for reply in replies:
        yield reply._replace(update=tree.map(lambda x: x.to(plan.engine.device), reply.update))


def read_state(data: bytes) -> Tree | None:
    """Return the state in some bytes; None if there is none."""
    try:
        return unpack(data)
    except Exception:  # another's bytes: they may break anything
        return None


def state_problem(found: Tree, computed: Tree, before: Tree | None) -> str | None:
    """Return how a state differs from the one that was computed here by more than rounding; None if it does not.

    Args:
        found: somebody else's.
        computed: from the same updates.
        before: the state before the round; None before the first one.
    """
    if tree.structure(found) != tree.structure(computed):
        return "has other parts"
    pairs = list(zip(tree.leaves(found), tree.leaves(computed), strict=True))
    if any(a.shape != b.shape or a.dtype != b.dtype for a, b in pairs):
        return "has other shapes or types"
    if not tree.is_finite(found) and tree.is_finite(computed):
        return "is not finite"
    floats = [(a.double().cpu(), b.double().cpu()) for a, b in pairs]
    apart = math.sqrt(sum(float((a - b).square().nansum()) for a, b in floats))
    size = math.sqrt(sum(float(b.square().nansum()) for _, b in floats))
    moved = 0.0 if before is None else _distance(computed, before)
    if apart <= WEIGHTS_ROUNDING * size + RELATIVE_ROUNDING * moved:
        return None
    return "does not follow from the round's updates"


def _distance(a: Tree, b: Tree) -> float:
    """Return the distance of two states over the leaves that have the same shapes in both."""
    other = dict(tree.items(b))
    pairs = [(x, other[path]) for path, x in tree.items(a) if path in other and other[path].shape == x.shape]
    return math.sqrt(sum(float((x.double().cpu() - y.double().cpu()).square().nansum()) for x, y in pairs))
