"""An algorithm whose server remembers where the last round went, so that the next one can be held against it."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

from coterie.core import tree
from coterie.core.algorithm import Algorithm, Federation, Recipe, Report
from coterie.core.tree import Tree

LAST = "probe"
"""Where it stands in S: the aggregate of the last round that had one, parameters alone; zeros before."""


def remembering(recipe: Recipe) -> Recipe:
    """The same algorithm, with the last aggregated difference of parameters in its server state.

    It is there, and not in the probe, because it must survive a round: a run that was stopped then measures what an
    unbroken one does. The algorithm itself never sees it.
    """
    return lambda task: _remembering(recipe(task))


def _remembering(algorithm: Algorithm) -> Algorithm:
    def init(weights: Tree | None, federation: Federation) -> Tree:
        state = algorithm.init(weights, federation)
        return {**state, LAST: tree.zeros_like(state["params"])}

    def update(state: Tree, aggregate: Tree, report: Report) -> Tree:
        last = aggregate["delta"]["params"] if "delta" in aggregate else state[LAST]
        return {**algorithm.update(_own(state), aggregate, report), LAST: last}

    return replace(
        algorithm,
        init=init,
        update=update,
        broadcast=lambda state: algorithm.broadcast(_own(state)),
        personal=lambda state, client: algorithm.personal(_own(state), client),
        measures=lambda before, after: algorithm.measures(_own(before), _own(after)),
        at=_in_each_stage(algorithm.at),
    )


def _in_each_stage(at: Callable[[int], Algorithm] | None) -> Callable[[int], Algorithm] | None:
    return None if at is None else lambda round: _remembering(at(round))


def _own(state: Tree) -> Tree:
    return {name: part for name, part in state.items() if name != LAST}
