"""Keep the last aggregated difference in the server state, so that the next round can be compared with it."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

from coterie.core import tree
from coterie.core.algorithm import Algorithm, Federation, Recipe, RoundInfo
from coterie.core.tree import Tree

LAST_AGGREGATE = "probe"
"""Its key in S: the aggregate of the last round that had one, parameters alone; zeros before."""


def keep_last_aggregate(recipe: Recipe) -> Recipe:
    """Return the same algorithm, with the last aggregated difference of parameters in its server state.

    The server state holds it, and not the probe, because it must survive a stop: a resumed run then measures what an
    unbroken one measures. The algorithm itself never sees it.
    """
    return lambda task: _wrap(recipe(task))


def _wrap(algorithm: Algorithm) -> Algorithm:
    """Return an algorithm that keeps the last aggregated difference in its server state, unseen by the inner one."""
    inner = algorithm.server

    def initial_state_with_zeros(weights: Tree | None, federation: Federation) -> Tree:
        state = inner.initial_state(weights, federation)
        return {**state, LAST_AGGREGATE: tree.zeros_like(state["params"])}

    def update_and_keep_aggregate(state: Tree, aggregate: Tree, info: RoundInfo) -> Tree:
        last = aggregate["delta"]["params"] if "delta" in aggregate else state[LAST_AGGREGATE]
        return {**inner.update(_without_last_aggregate(state), aggregate, info), LAST_AGGREGATE: last}

    server = replace(
        inner,
        initial_state=initial_state_with_zeros,
        update=update_and_keep_aggregate,
        broadcast=lambda state: inner.broadcast(_without_last_aggregate(state)),
        evaluated_weights=lambda state, client: inner.evaluated_weights(_without_last_aggregate(state), client),
        measures=lambda before, after: inner.measures(_without_last_aggregate(before), _without_last_aggregate(after)),
    )
    return replace(algorithm, server=server, stage=_wrap_stages(algorithm.stage))


def _wrap_stages(stage: Callable[[int], Algorithm] | None) -> Callable[[int], Algorithm] | None:
    return None if stage is None else lambda round: _wrap(stage(round))


def _without_last_aggregate(state: Tree) -> Tree:
    return {name: part for name, part in state.items() if name != LAST_AGGREGATE}
