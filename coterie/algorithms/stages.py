"""One algorithm for some rounds, then another, over one server state.

>>> from coterie.algorithms import fedavg
>>> from coterie.algorithms.stages import stages
>>> small_steps_last = stages([(fedavg(lr=0.1), 100), (fedavg(lr=0.01), None)])
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from itertools import accumulate

from coterie.core.algorithm import Algorithm, Federation, Recipe, RoundInfo
from coterie.core.errors import Mistake
from coterie.core.task import Task
from coterie.core.tree import Tree


def stages(parts: Sequence[tuple[Recipe, int | None]]) -> Recipe:
    """Run each recipe for its number of rounds, and the last for the rest.

    What a stage has at the server and another one does not is left as it is by the other. What clients keep must have
    the same names in all stages, such as "momentum". A stage that has stages itself
    counts its rounds from its own first.

    Args:
        parts: (recipe, rounds); the last one's rounds are None.

    Raises:
        Mistake: there are no parts, or a number of rounds is missing or out of range.
    """
    if not parts or parts[-1][1] is not None or any(rounds is None or rounds < 0 for _, rounds in parts[:-1]):
        raise Mistake("stages: each needs its number of rounds, 0 or more, but the last, which has None")
    ends = list(accumulate(rounds or 0 for _, rounds in parts[:-1]))
    begins = [0, *ends]

    def bind(task: Task) -> Algorithm:
        bound = [recipe(task) for recipe, _ in parts]

        def initial_server_state(weights: Tree | None, federation: Federation) -> Tree:
            state: Tree = {}
            for algorithm in reversed(bound):
                state |= algorithm.server.initial_state(weights, federation)
            return state

        def at(round: int) -> Algorithm:
            now = sum(round > end for end in ends)
            stage = bound[now]
            return _keeping_the_rest(stage.stage(round - begins[now]) if stage.stage else stage)

        def remarks(rounds: int) -> list[str]:
            lengths = [min(end, rounds) - begin for begin, end in zip(begins, [*ends, rounds], strict=True)]
            return [said for stage, own in zip(bound, lengths, strict=True) if own > 0 for said in stage.warnings(own)]

        return replace(
            bound[-1],
            server=replace(
                bound[-1].server,
                initial_state=initial_server_state,
            ),
            traits=replace(
                bound[-1].traits,
                reads_seed_set=any(algorithm.needs_seed_set for algorithm in bound),
            ),
            warnings=remarks,
            stage=at,
        )

    return bind


def _keeping_the_rest(algorithm: Algorithm) -> Algorithm:
    update: Callable[[Tree, Tree, RoundInfo], Tree] = algorithm.server.update
    return replace(
        algorithm,
        server=replace(
            algorithm.server,
            update=lambda state, aggregate, info: {**state, **update(state, aggregate, info)},
        ),
    )
