"""A round whose updates nobody sees: the server gets masked numbers, and opens their sum alone.

What a server that sees updates would check, each client checks of its own; what a server would do to single updates is
refused before the first round (`check_secure_sum`). How the masks work stands in `coterie.privacy.masking_client`.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping

import torch

from coterie.core import tree
from coterie.core.algorithm import Weighting
from coterie.core.engine import Reply
from coterie.core.errors import Mistake
from coterie.core.examples import sizes
from coterie.core.tree import Tree
from coterie.loop.check_update import problem
from coterie.loop.jobs import Assignment
from coterie.loop.plan import Plan
from coterie.loop.private_plan import clients_asked, least_reached
from coterie.loop.private_sum import private_form
from coterie.loop.secure_work import MASKED, SecureWork
from coterie.loop.sum_layout import OpenedSum, SumLayout, as_one_mean, power_above
from coterie.loop.tally import Tally
from coterie.privacy.fixed_point import FixedPoint
from coterie.privacy.masking_client import LEAST_CLIENTS
from coterie.privacy.masking_server import MaskingServer, TooFew, find_quorum


def hides_updates(plan: Plan) -> bool:
    """Return whether the plan's updates are summed so that nobody sees one."""
    return plan.privacy is not None and plan.privacy.secure_sum


def check_secure_sum(plan: Plan, keep_updates: bool = False) -> None:
    """Refuse what a server cannot do that sees no update.

    Raises:
        Mistake: the plan asks for it.
    """

    def refuse(sentence: str) -> None:
        raise Mistake(f"a secure sum hides single updates: {sentence}", key="secure_sum", value=True, table="privacy")

    assert plan.privacy is not None
    for round in {1, min(2, plan.rounds), plan.rounds}:
        server = plan.in_round(round).algorithm.server
        for part in server.weighting:
            as_one_mean(server, part, plan.aggregator)
    if plan.algorithm.traits.pooled:
        refuse("this algorithm has one client that holds all data; choose another one")
    if plan.attack is not None and plan.attack.forge is not None:
        refuse("simulated attackers look at those of all others; leave out [attack], or poison labels")
    if plan.faults.corrupt:
        refuse("a server cannot find the one that was corrupted on its way; leave out faults.corrupt")
    if plan.codec.sparse:
        refuse("numbers that do not travel cannot be masked; choose another codec")
    if plan.probe is not None or keep_updates:
        refuse("there are none to keep or to look at; leave out [probe] and keep_updates")
    if plan.team.size > 1:
        refuse("its simulation is of one process; set engine.workers = 1")
    size = plan.cohort_size()
    if size < LEAST_CLIENTS:
        refuse(f"from a sum of {size} one could tell them; a cohort has {LEAST_CLIENTS} clients or more")
    quorum(plan, size)
    fixed_point(plan, size)


def fixed_point(plan: Plan, clients: int) -> FixedPoint:
    """Return how numbers become residues in a round of so many clients.

    A guarantee for clients bounds every update, so its bound and its noise say how large a number can be. Updates of
    other runs have no bound, also where their gradients were noised for a guarantee for examples: there a client whose
    update has a number above `secure_limit` sends nothing, so a sum cannot overflow in them either. That a client sends
    nothing follows from its noised update alone, so it costs such a guarantee nothing.
    """
    assert plan.privacy is not None
    if plan.guarantee is not None:
        return private_form(plan, clients)
    return FixedPoint(max(clients, 1), plan.privacy.secure_bits, plan.privacy.secure_limit)


def quorum(plan: Plan, cohort: int) -> int:
    """Return how many clients of a cohort must stay until the sum is opened; their noise suffices, where they add it.

    Raises:
        Mistake: the threshold is out of range.
    """
    privacy = plan.privacy
    assert privacy is not None
    needed = find_quorum(cohort, privacy.secure_threshold)
    adds_noise = plan.guarantee is not None and privacy.where == "clients"
    return max(needed, least_reached(privacy, clients_asked(plan))) if adds_noise else needed


UNIT_WEIGHTS: dict[Weighting, float] = {"examples": 1.0, "processed": 1.0, "one": 1.0}
"""As P_k where only the form of a row matters."""


class Layouts:
    """The layouts of a round's rows, alike for all clients.

    Args:
        plan: in this round.
        largest: P_k of each kind of weight; see `coterie.loop.sum_layout`.
        template_of: a client's work -> what an honest payload would look like without masks.
        cohort: how many clients are asked.
    """

    def __init__(
        self, plan: Plan, largest: Mapping[Weighting, float], template_of: Callable[[Assignment], Tree], cohort: int
    ) -> None:
        self.plan, self.largest, self.template_of = plan, largest, template_of
        self.form = fixed_point(plan, cohort)

    def of(self, work: Assignment) -> SumLayout:
        """Return the layout for a client's work."""
        template, server = self.plan.codec.decode(self.template_of(work)), self.plan.algorithm.server
        plain = self.plan.guarantee is not None
        return SumLayout(server, self.plan.aggregator, template, self.largest, self.form, plain)

    def honest_payload(self, work: Assignment, logs: int = 0) -> Tree:
        """Return what an honest masked payload with so many logs looks like."""
        layout = self.of(work)
        return {MASKED: torch.empty(layout.length(logs), self.form.bytes, dtype=torch.uint8, device="meta")}


def largest_weights(plan: Plan, costs: Mapping[str, int]) -> dict[Weighting, float]:
    """Return a power of two for each kind of weight that no client's exceeds.

    Args:
        plan: knows how many examples clients have.
        costs: client -> the most examples that its steps process.
    """
    if plan.guarantee is not None:
        return UNIT_WEIGHTS
    examples = max(sizes(plan.clients, list(costs)), default=1)
    return {"examples": power_above(examples), "processed": power_above(max(costs.values(), default=1)), "one": 1.0}


def aggregate_in_secret(
    plan: Plan,
    number: int,
    work: SecureWork,
    template_of: Callable[[Assignment], Tree],
    tally: Tally,
    keep: Callable[[Iterator[Reply]], Iterator[Reply]],
) -> Tree | None:
    """Return the aggregate of a round's updates; None where too few clients stayed to open their sum.

    Under a guarantee it is the sum of what the clients add, float64.

    Args:
        plan, number, tally: of the round, whose cohort is drawn.
        work: where the clients work.
        template_of: a client's work -> what an honest payload would look like without masks.
        keep: passes the replies on, and keeps their clients' new states.
    """
    server = MaskingServer(work.purpose, quorum(plan, len(tally.cohort)))
    layouts = Layouts(plan, largest_weights(plan, work.costs), template_of, len(tally.cohort))
    try:
        opened = _open_sum(work, server, layouts, tally, keep)
    except TooFew as error:
        tally.merge(plan.team)
        tally.reject(str(error))
        _name_silent(tally, str(error))
        return None
    tally.merge(plan.team)
    _name_silent(tally, "sent no numbers")
    if plan.guarantee is None and _is_zero(opened.aggregate):
        tally.reject(
            f"every number of the updates is 0 in the steps of the secure sum, {layouts.form.step:.3g}; give more "
            "privacy.secure_bits, or a lower privacy.secure_limit"
        )
        return None
    tally.sums = (opened.weighting, opened.logs)
    return opened.aggregate


def _open_sum(
    work: SecureWork,
    server: MaskingServer,
    layouts: Layouts,
    tally: Tally,
    keep: Callable[[Iterator[Reply]], Iterator[Reply]],
) -> OpenedSum:
    """Run the steps of a secure sum.

    Raises:
        TooFew: too few clients are left at one of them.
    """
    found: list[tuple[SumLayout, list[str]]] = []  # of the first reply that counts

    def judge_replies() -> Iterator[Reply]:
        """Count every masked reply, and pass on those that can be added."""
        for job, reply in work.replies(server, layouts):
            layout, names = layouts.of(job), sorted(reply.logs)
            wrong = problem(reply.update, 1.0, layouts.honest_payload(job, len(names)))
            if wrong is None and found and names != found[0][1]:
                wrong = "its logs have other names than those of the clients before it"
            tally.count(reply, tree.nbytes(reply.update), wrong)
            if wrong is None:
                found.append((layout, names)) if not found else None
                yield reply

    for reply in keep(judge_replies()):
        server.add(reply.client, found[0][0].form.unpack(reply.update[MASKED].cpu().numpy()))
    residues = server.open(work.unmask(server.ask()))
    layout, names = found[0]
    return layout.decode(residues, names, layouts.plan.engine.device)


def _is_zero(aggregate: Tree) -> bool:
    """Return whether all of its real numbers are 0; whole numbers, such as a count of batches, say nothing here."""
    return not any(leaf.is_floating_point() and bool(leaf.any()) for leaf in tree.leaves(aggregate))


def _name_silent(tally: Tally, why: str) -> None:
    """Note the clients of the cohort of which nothing came, in the cohort's order."""
    place = {client: k for k, client in enumerate(tally.cohort)}
    known = {entry["client"] for entry in tally.silent} | {answer.client for answer in tally.answers}
    missing = [{"client": client, "why": why} for client in tally.cohort if client not in known]
    tally.silent = sorted([*tally.silent, *missing], key=lambda entry: place[entry["client"]])
