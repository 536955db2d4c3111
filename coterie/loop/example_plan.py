"""What a guarantee for single examples costs each client, and what it needs of a plan.

Client i with n_i examples releases, in each round that asks it, one Gaussian mechanism for each of its steps, on a
Poisson sample with the probability B / n_i. Its data are its own, so every client has an account of its own, and the
run's epsilon is the largest. A round counts for the clients that it asked, whether or not their updates arrived. How
many examples a client has, and which clients a round asks, are public here: neighbours are data sets in which one
example has a gradient or counts as nothing.

Legend: n_i examples of client i, B batch size, z noise multiplier.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import replace

from coterie.algorithms.example_privacy import protect_algorithm, protect_task, queries
from coterie.core.algorithm import Algorithm, Recipe, Stream
from coterie.core.errors import Mistake
from coterie.core.task import Task
from coterie.core.tree import Tree
from coterie.privacy.accountant import Event, calibrate, spent
from coterie.privacy.table import Privacy

EXAMPLE_DELTA_POWER = -1.1
"""delta is the largest client's number of examples to this power unless it is given: below 1 / n_i for every client."""

Queries = tuple[tuple[float, int], ...]
"""(sampling probability, number of steps) of all that a client was asked for, in ascending order."""


def complete_example_privacy(
    privacy: Privacy, algorithm: Algorithm, sizes: Sequence[int], rounds: int, other_problem: str | None = None
) -> Privacy:
    """Return [privacy] with its delta and its noise multiplier, one for all clients.

    Where `epsilon` is given without a multiplier, it is the smallest with which no client spends more, even if every
    round asks it.

    Args:
        privacy: with unit = "example".
        algorithm: bound to a task without privacy.
        sizes: n_i of each client.
        rounds: that are planned.
        other_problem: why the rest of the plan cannot give the guarantee, in a sentence; None: it can.

    Raises:
        Mistake: the guarantee is not possible, or the rounds would spend more than `epsilon`.
    """
    if other_problem is not None:
        raise Mistake(other_problem, key="unit", value="example")
    delta = privacy.delta if privacy.delta is not None else min(max(sizes, default=1) ** EXAMPLE_DELTA_POWER, 0.1)
    planned = _without_dominated({list_queries(algorithm, n, range(1, rounds + 1)) for n in set(sizes) if n})
    multiplier, target = privacy.noise_multiplier, privacy.epsilon
    if multiplier is None:
        assert target is not None, "one of the two is given"
        multiplier = 0.0
        for each in sorted(planned, key=_weight, reverse=True):
            if not multiplier or spent(account(each, multiplier), delta) > target:
                multiplier = calibrate(target, delta, _account_of(each))
        multiplier = multiplier or 1.0  # nobody has an example
    elif target is not None:
        cost = max((spent(account(each, multiplier), delta) for each in planned), default=0.0)
        if cost > target:
            raise Mistake(
                f"{rounds} rounds with `noise_multiplier` = {multiplier:g} spend {cost:.3g} at one client; run fewer "
                "rounds, or start another run with more noise",
                key="epsilon",
                value=target,
            )
    return replace(privacy, delta=delta, noise_multiplier=multiplier)


def protect_plan(
    privacy: Privacy, recipe: Recipe, tasks: Mapping[str, Task], initial: Mapping[str, Tree]
) -> tuple[dict[str, Task], dict[str, Algorithm]]:
    """Return the tasks and the algorithms, by architecture, whose clients hide each of their examples.

    Args:
        privacy: complete.
        recipe: the algorithm.
        tasks, initial: by architecture.

    Raises:
        Mistake: a model or the algorithm mixes examples.
    """
    chosen = {
        "clip_norm": privacy.clip_norm,
        "noise_multiplier": privacy.noise_multiplier,
        "statistics_clip": privacy.statistics_clip,
        "statistics_share": privacy.statistics_share,
    }
    rule = {name: value for name, value in chosen.items() if value is not None}
    hidden = {name: protect_task(task, initial[name], **rule) for name, task in tasks.items()}
    return hidden, {name: protect_algorithm(recipe(task), task) for name, task in hidden.items()}


def list_queries(algorithm: Algorithm, n: int, rounds: Iterable[int]) -> Queries:
    """Return all that a client with n examples is asked for in these rounds."""
    streams: dict[int, tuple[Mapping[str, Stream], int]] = {}
    for round in rounds:
        now = (algorithm.stage(round) if algorithm.stage else algorithm).client.streams
        streams[id(now)] = now, streams.get(id(now), (now, 0))[1] + 1
    total: Counter[float] = Counter()
    for own, times in streams.values():
        for probability, steps in queries(own, n).items():
            total[probability] += steps * times
    return tuple(sorted(total.items()))


def account(each: Queries, multiplier: float) -> dict[Event, int]:
    """Return a client's account of what it was asked for, with this noise."""
    return {Event(multiplier, probability): steps for probability, steps in each}


def spent_by_clients(
    algorithm: Algorithm, privacy: Privacy, sizes: Mapping[str, int], cohorts: Iterable[tuple[int, Iterable[str]]]
) -> dict[str, float]:
    """Return the epsilon that each client has spent, at the guarantee's delta.

    Args:
        algorithm: with or without privacy.
        privacy: complete.
        sizes: client -> n_i.
        cohorts: each round, and the clients that it asked; a round that was run again stands there again.
    """
    assert privacy.noise_multiplier is not None, "the privacy is complete"
    assert privacy.delta is not None, "the privacy is complete"
    rounds: dict[str, list[int]] = {client: [] for client in sizes}
    for number, cohort in cohorts:
        for client in cohort:
            rounds[client].append(number)
    costs: dict[Queries, float] = {}
    found = {}
    for client, own in rounds.items():
        each = list_queries(algorithm, sizes[client], own) if sizes[client] else ()
        if each not in costs:
            costs[each] = spent(account(each, privacy.noise_multiplier), privacy.delta)
        found[client] = costs[each]
    return found


def _account_of(each: Queries) -> Callable[[float], Mapping[Event, int]]:
    return lambda z: account(each, z)


def _weight(each: Queries) -> float:
    """Return about how much a client spends: the sum of steps q^2, which decides where the noise is large."""
    return sum(steps * q * q for q, steps in each)


def _without_dominated(planned: set[Queries]) -> set[Queries]:
    """Return what is planned, without clients that ask less often, and of a smaller share, than another one does."""

    def is_dominated(a: Queries, b: Queries) -> bool:
        return a != b and len(a) == len(b) == 1 and a[0][0] <= b[0][0] and a[0][1] <= b[0][1]

    return {a for a in planned if not any(is_dominated(a, b) for b in planned)}
