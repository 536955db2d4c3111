"""What happens to clients' replies on their way to the server. Each function takes a stream of replies and gives one.

    encode    the client's codec packs the update into a payload
    corrupt   simulated faults damage some payloads
    check     the server refuses what cannot be used
    decode    the server unpacks the payload, or refuses what its codec cannot have made
    forge     attackers replace their updates
    inspect   the server refuses what no honest client of this algorithm sends

Replies pass one by one, so a round needs the memory of one update. Only attackers look at all of them together.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import TypeVar

from coterie.core import rng, tree
from coterie.core.engine import Reply
from coterie.core.errors import mistakes_in
from coterie.core.tree import Tree
from coterie.loop.check_update import broken_leaf, part_problem, problem
from coterie.loop.faults import corrupt_payload
from coterie.loop.jobs import Assignment
from coterie.loop.plan import Plan
from coterie.loop.tally import Tally
from coterie.processes.team import all_to_all

W = TypeVar("W")


def encode(plan: Plan, replies: Iterable[tuple[Assignment, Reply]]) -> Iterator[tuple[Assignment, Reply]]:
    """Put each update into its payload. What the codec has to remember becomes part of the client's state."""
    for work, reply in replies:
        key = rng.key(plan.rng_seed, work.job.round, reply.client, "up")
        before = work.codec_state or plan.codec.init(reply.update)
        payload, after = plan.codec.encode(reply.update, before, key)
        yield work, reply._replace(update=payload, state={"algorithm": reply.state, "up": after})
        del reply, payload, after


def corrupt(plan: Plan, replies: Iterable[tuple[Assignment, Reply]]) -> Iterator[tuple[Assignment, Reply]]:
    """Damage the payload or the weight of the clients that the plan's faults choose."""
    for work, reply in replies:
        purpose = (plan.rng_seed, work.job.round, reply.client)
        if plan.faults.of(*purpose) == "corrupt":
            payload, weight = corrupt_payload(reply.update, reply.weighting["examples"], *purpose)
            reply = reply._replace(update=payload, weighting={**reply.weighting, "examples": weight})
            del payload
        yield work, reply
        del reply


def check(
    replies: Iterable[tuple[W, Reply]],
    template_of: Callable[[W], Tree],
    tally: Tally,
    state_before: Callable[[W], Tree] = lambda work: {},
) -> Iterator[Reply]:
    """Count every reply, and pass on those that the server can use and that leave the client a finite state.

    Args:
        replies: each with the work that it answers.
        template_of: work -> what an honest payload looks like.
        tally: what is counted; it notes why a reply is refused.
        state_before: work -> the client's state before it.
    """
    for work, reply in replies:
        weight = reply.weighting.get("examples", 1.0)  # without a server nobody says how many examples there are
        wrong = problem(reply.update, weight, template_of(work)) or _state_problem(reply.state, state_before(work))
        tally.count(reply, tree.nbytes(reply.update), wrong)
        if wrong is None:
            yield reply
        del reply


def _state_problem(after: Tree, before: Tree) -> str | None:
    """Return what is wrong with the state that a client would keep, or None."""
    broken = broken_leaf(after, before)
    return None if broken is None else f"the client's own {broken} holds numbers that are not finite"


def decode(plan: Plan, replies: Iterable[Reply], tally: Tally) -> Iterator[Reply]:
    """Turn each payload back into an update; refuse payloads that cannot be decoded."""
    for reply in replies:
        wrong = plan.codec.problem(reply.update)
        if wrong is None:
            yield reply._replace(update=plan.codec.decode(reply.update))
        else:
            tally.refuse(reply.client, wrong)
        del reply


def forge(plan: Plan, number: int, replies: Iterable[Reply], cohort: Sequence[str]) -> Iterator[Reply]:
    """Replace each attacker's update by its forgery. Attackers see all updates of the round.

    Without an attack, the replies pass one by one. Collective: every process calls it, for its own replies.
    """
    if plan.attack is None:
        yield from replies
        return
    own = {reply.client: reply for reply in replies}
    by_client = own if plan.team.size == 1 else {**_replies_of_all(plan, own), **own}
    everyone = [by_client[client] for client in cohort if client in by_client]
    server = plan.algorithm.server
    rules = {part: server.aggregator(part, plan.aggregator) for part in server.weighting}
    key = rng.key(plan.rng_seed, number, "attack")
    with mistakes_in("attack"):
        forged = plan.attack.forge_updates(everyone, plan.attackers(), rules, server.weighting, key)
    yield from (reply for reply in forged if reply.client in own)


def inspect(plan: Plan, replies: Iterable[Reply], tally: Tally) -> Iterator[Reply]:
    """Pass on the updates whose parts satisfy what the algorithm says of them; see `ServerHalf.checks`.

    Forged updates are inspected like all. Attacks of the literature forge weights and gradients, of which nothing can
    be said, so they pass as they are. A table of posteriors that is forged in the same way has rows that are no
    probabilities, and any server that looks would notice.
    """
    for reply in replies:
        wrong = part_problem(plan.algorithm.server, reply.update, plan.codec.rounding)
        if wrong is None:
            yield reply
        else:
            tally.refuse(reply.client, wrong)
        del reply


def _replies_of_all(plan: Plan, own: Mapping[str, Reply]) -> dict[str, Reply]:
    """Return every process's replies, without states and logs. Collective: every process calls it."""
    updates = all_to_all(plan.team, [{client: reply.update for client, reply in own.items()}] * plan.team.size)
    weightings = plan.team.gather({client: reply.weighting for client, reply in own.items()})
    weighting = {client: weights for part in weightings for client, weights in part.items()}
    here = tree.map(lambda x: x.to(plan.engine.device), updates)
    return {client: Reply(client, update, {}, weighting[client], {}) for client, update in here.items()}
