"""Run one algorithm for some rounds, then another, over one server state.

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
    """Return an algorithm that runs each recipe for its number of rounds, and the last for the rest.

    A stage does not change those parts of the server state that only another stage has. Client states must have the
    same names in all stages, such as "momentum". A stage that has stages itself counts rounds from its own first.

    Args:
        parts: (recipe, rounds); the last one's rounds are None.

    Raises:
        Mistake: there are no parts, or a number of rounds is missing or out of range.
    """
    if not parts or parts[-1][1] is not None or any(rounds is None or rounds < 0 for _, rounds in parts[:-1]):
        raise Mistake("stages: every stage except the last needs a number of rounds, 0 or more; the last has None")
    ends = list(accumulate(rounds or 0 for _, rounds in parts[:-1]))
    starts = [0, *ends]

    def bind(task: Task) -> Algorithm:
        bound = [recipe(task) for recipe, _ in parts]

        def initial_server_state(weights: Tree | None, federation: Federation) -> Tree:
            """Return the initial states of all stages as one; where names collide, the earlier stage's part counts."""
            state: Tree = {}
            for algorithm in reversed(bound):
                state |= algorithm.server.initial_state(weights, federation)
            return state

        def stage_of(round: int) -> Algorithm:
            """Return the algorithm of the stage that a round belongs to."""
            now = sum(round > end for end in ends)
            stage = bound[now]
            return _keep_other_parts(stage.stage(round - starts[now]) if stage.stage else stage)

        def warnings(rounds: int) -> list[str]:
            """Return the warnings of every stage that runs, given how many rounds it gets."""
            lengths = [min(end, rounds) - begin for begin, end in zip(starts, [*ends, rounds], strict=True)]
            return [text for stage, own in zip(bound, lengths, strict=True) if own > 0 for text in stage.warnings(own)]

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
            warnings=warnings,
            stage=stage_of,
        )

    return bind


def _keep_other_parts(algorithm: Algorithm) -> Algorithm:
    """Return the algorithm with an `update` that keeps those parts of the server state that it does not return."""
    update: Callable[[Tree, Tree, RoundInfo], Tree] = algorithm.server.update
    return replace(
        algorithm,
        server=replace(
            algorithm.server,
            update=lambda server_state, aggregate, info: {**server_state, **update(server_state, aggregate, info)},
        ),
    )
