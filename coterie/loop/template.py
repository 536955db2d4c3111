"""What an honest payload looks like: leaves, shapes and types, against which the server checks what arrives."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple, TypeAlias, get_args

import torch

from coterie.core import rng, tree
from coterie.core.algorithm import Algorithm, ClientHalf, Weighting
from coterie.core.engine import Job, client_context
from coterie.core.errors import Mistake
from coterie.core.tree import Tree
from coterie.loop.jobs import Assignment
from coterie.loop.plan import Plan

Form: TypeAlias = tuple[dict[str, Any], list[tuple[torch.Size, torch.dtype]]]
"""A tree's structure, and the shape and type of each leaf."""

MAX_ENTRIES = 64
"""Templates that are kept. An algorithm whose stages are made again in every round would need one for each."""


class _Entry(NamedTuple):
    client: ClientHalf  # kept, so that no other one gets its id
    given: tuple[Form, Form, object]
    template: Tree


class Templates:
    """The templates of a federation, each made once.

    A template is the payload of a client that takes no step. Making one runs the client's `start` and `finish`, which
    may cost as much as the round itself. These never branch on a tensor's value, so the template depends on the forms
    of the broadcast and of the client's state alone. It is made again where one of these changes, as with a consensus
    that is empty in the first round, and where other leaves of the broadcast are not finite (see
    `coterie.algorithms.local.delta`). One with numbers that are not finite serves its own round only.
    """

    def __init__(self) -> None:
        self._entries: dict[tuple[str, int], _Entry] = {}

    def of_round(self, plan: Plan, broadcast: Tree) -> Callable[[Assignment], Tree]:
        """Return a function: a client's work -> its template. One template serves all clients of an architecture."""
        in_round: dict[str, Tree] = {}

        def template_of(work: Assignment) -> Tree:
            architecture = work.job.architecture
            if architecture not in in_round:
                in_round[architecture] = self._template(plan, broadcast, work.job)
            return in_round[architecture]

        return template_of

    def _template(self, plan: Plan, broadcast: Tree, job: Job) -> Tree:
        """Return the template of a job, made now or in an earlier round."""
        algorithm = plan.algorithms[job.architecture]
        name = (job.architecture, id(algorithm.client))
        infinite = [path for path, leaf in tree.items(broadcast) if not tree.is_finite(leaf)]
        given = (_form(broadcast), _form(job.state), (algorithm.server.weighting, infinite))
        entry = self._entries.get(name)
        if entry is None or entry.given != given:
            payload = _payload(plan, algorithm, broadcast, job)
            entry = _Entry(algorithm.client, given, tree.map(lambda x: torch.empty_like(x, device="meta"), payload))
            if tree.is_finite(payload):  # else the codec may have sent it as it is
                self._keep(name, entry)
        return entry.template

    def _keep(self, name: tuple[str, int], entry: _Entry) -> None:
        """Keep a template, after dropping all others if there are too many."""
        if len(self._entries) >= MAX_ENTRIES:
            self._entries.clear()
        self._entries[name] = entry


def _form(t: Tree) -> Form:
    """Return a tree's structure, and the shape and type of each leaf."""
    return tree.structure(t), [(leaf.shape, leaf.dtype) for leaf in tree.leaves(t)]


def _payload(plan: Plan, algorithm: Algorithm, broadcast: Tree, job: Job) -> Tree:
    """Return the payload of a client that takes no step.

    Raises:
        Mistake: the algorithm's `finish` and its `weighting` do not name the same parts, or a weighting is unknown.
    """
    ctx = client_context(algorithm, job, 1, plan.engine)
    carry = tree.clone(algorithm.client.start(broadcast, job.state, ctx))
    update, _ = algorithm.client.finish(broadcast, carry, ctx)
    weighting = algorithm.server.weighting
    if update.keys() != weighting.keys():
        raise Mistake(
            f"the algorithm's update has the parts {sorted(update)} but it names weights for {sorted(weighting)}; "
            "name one weight for each part"
        )
    for part, weight in weighting.items():
        if weight not in get_args(Weighting):
            kinds = ", ".join(get_args(Weighting))
            raise Mistake(f'the algorithm names the weight "{weight}" for its part {part}; it must be one of {kinds}')
    return plan.codec.encode(update, plan.codec.init(update), rng.key("template"))[0]
