"""The numbers that a round is judged by, as the plan's evaluation wants them.

Legend: N clients, C classes.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple, TypeVar

from torch import Tensor

from coterie.core.task import Metric, Task
from coterie.core.tree import Tree
from coterie.loop import domains, evaluate, own_tests
from coterie.loop.measure_names import name_measures
from coterie.loop.plan import Plan
from coterie.loop.store import Store
from coterie.processes.team import broadcast_from, owner, owns

T = TypeVar("T")
NAN = float("nan")


def measure_round(plan: Plan, number: int, state: Tree, store: Store) -> dict[str, Any]:
    """Return test_loss, test_accuracy and further metrics after a round. Collective: every process calls it.

    They are None if the round is not evaluated, or if the algorithm trains no classifier. If clients are few and have
    test data of their own, `coterie.loop.domains` adds its matrix. Where outputs on the test data of all are not
    finite, test_outputs_not_finite says for how many examples, summed over the clients' models if there are several.
    """
    result: dict[str, Any] = {"test_loss": None, "test_accuracy": None}
    if not plan.algorithm.traits.predicts:
        return result
    if plan.workplace is not None:
        return result | plan.workplace.measure(plan, number, state, store)
    if not plan.evaluation.due(number, plan.rounds):
        return result
    measure = _measure_own_models if plan.algorithm.traits.own_models else _measure_common_model
    return result | measure(plan, state, store)


def _measure_common_model(plan: Plan, state: Tree, store: Store) -> dict[str, Any]:
    """Measure the one model that all clients share. Collective: every process calls it."""
    result: dict[str, Any] = {}
    per_class = scores = None
    task, weights = plan.tasks[plan.architecture(plan.ids[0])], _common_weights(plan, state, store)
    if plan.evaluation.test is not None:
        scores = evaluate.scores(task, weights, plan.evaluation.test, plan.engine, team=plan.team)
        result |= name_measures(evaluate.mean(scores), task, evaluate.intervals(scores))
        result |= _broken(evaluate.count_broken(scores))
        per_class = accuracy_per_class(plan, plan.ids[0], scores)
    if plan.evaluation.clients:
        own = _gather_measures(plan, lambda client: own_accuracy(plan, weights, client, per_class))
        result |= summarise_own(list(own.values()))
        each = _gather_measures(plan, lambda client: own_tests.measure_clients(plan, task, weights, client))
        result |= own_tests.merge_clients({c: found for part in each.values() for c, found in part.items()}, task)
    names = domains.domain_clients(plan)
    row = domains.accuracy_row(plan, task, weights, names, scores) if names else []
    return result | (domains.summarise([row]) if names else {})


def _common_weights(plan: Plan, state: Tree, store: Store) -> Tree:
    """Return the weights of the model that all clients share. Collective: every process calls it."""
    client = plan.ids[0]
    if not plan.algorithm.traits.pooled:
        return plan.evaluated_weights(state, store, client)
    is_owner = owns(plan.team, client)
    own = plan.evaluated_weights(state, store, client) if is_owner else plan.initial[plan.architecture(client)]
    return broadcast_from(plan.team, own, by=owner(plan.team, client))


def _gather_measures(plan: Plan, measure: Callable[[str], T]) -> dict[str, T]:
    """Measure every client at its owner; return the measures in the order of the clients.

    Collective: every process calls it.
    """
    own = {client: measure(client) for client in plan.ids if owns(plan.team, client)}
    by_client = {client: value for part in plan.team.gather(own) for client, value in part.items()}
    return {client: by_client[client] for client in plan.ids}


class ClientMeasures(NamedTuple):
    """The measures of one client's model."""

    means: dict[str, float]  # on the test data of all
    broken: int  # of these data, examples for which the outputs are not finite
    own: float | None  # its accuracy on the client's own test data
    row: list[float | None]  # its accuracy on each client's own test data
    own_tests: own_tests.OwnTests | None = None  # what else was measured on the client's own test data


def _measure_own_models(plan: Plan, state: Tree, store: Store) -> dict[str, Any]:
    """Return the means over the clients' models of their measures. Collective: every process calls it."""
    each = _gather_measures(plan, lambda client: measure_own_model(plan, state, store, client))
    return mean_of_models(list(each.values()), next(iter(plan.tasks.values())))


def mean_of_models(each: Sequence[ClientMeasures], task: Task) -> dict[str, Any]:
    """Return the means over the measures of several clients' models; of a metric over those for which it is defined."""
    totals: dict[str, float] = {}
    for name in dict.fromkeys(name for measures in each for name in measures.means):
        found = [measures.means[name] for measures in each if name in measures.means]
        is_metric = isinstance(task.metrics.get(name), Metric)
        known = [value for value in found if not math.isnan(value)] if is_metric else found
        totals[name] = sum(value / len(known) for value in known) if known else NAN
    named = name_measures(totals, task)
    own = [measures.own for measures in each if measures.own is not None]
    tests = {c: measured for measures in each for c, measured in (measures.own_tests or {}).items()}
    matrix = [measures.row for measures in each]
    broken = _broken(sum(measures.broken for measures in each))
    of_own = (summarise_own(own) if own else {}) | own_tests.merge_clients(tests, task)
    return {**named, **broken, **of_own, **domains.summarise(matrix)}


def _broken(examples: int) -> dict[str, int]:
    """Return the measure of outputs that are not finite; nothing where all are."""
    return {f"test_{evaluate.BROKEN}": examples} if examples else {}


def measure_own_model(plan: Plan, state: Tree, store: Store, client: str) -> ClientMeasures:
    """Measure one client's model.

    Raises:
        LookupError: the client's state is kept elsewhere.
    """
    means, broken = dict[str, float](), 0
    per_class = scores = None
    task, weights = plan.tasks[plan.architecture(client)], plan.evaluated_weights(state, store, client)
    if plan.evaluation.test is not None:
        scores = evaluate.scores(task, weights, plan.evaluation.test, plan.engine)
        means, per_class = evaluate.mean(scores), accuracy_per_class(plan, client, scores)
        broken = evaluate.count_broken(scores)
    row = domains.accuracy_row(plan, task, weights, domains.domain_clients(plan), scores)
    wanted = plan.evaluation.own is not None or per_class is not None
    own = own_accuracy(plan, weights, client, per_class) if wanted else None
    return ClientMeasures(means, broken, own, row, own_tests.measure_clients(plan, task, weights, client))


def summarise_own(accuracies: list[float]) -> dict[str, float | None]:
    """Return the mean and the worst tenth over the clients that have an accuracy."""
    known = [accuracy for accuracy in accuracies if not math.isnan(accuracy)]
    return {
        "own_test_accuracy": sum(known) / len(known) if known else None,
        "own_test_accuracy_worst_tenth": evaluate.worst_tenth(known) if known else None,
    }


def accuracy_per_class(plan: Plan, client: str, scores: evaluate.Scores) -> Tensor | None:
    """Return a model's accuracy on each class [C]; None unless clients' own accuracies are computed from it."""
    evaluation, task = plan.evaluation, plan.tasks[plan.architecture(client)]
    if evaluation.own is not None or evaluation.shares is None or evaluation.test is None:
        return None
    y = evaluation.test.labels()
    assert y is not None
    return evaluate.accuracy_by_class(scores, y, task.num_classes or 0)


def own_accuracy(plan: Plan, weights: Tree, client: str, per_class: Tensor | None) -> float:
    """Return the accuracy of a client's model on its own test data; nan if it cannot be measured.

    Without such data, it is that on all test data with the classes as frequent as in the client's training data.

    Args:
        weights: {"params", "buffers"} that the client is evaluated with.
        per_class: the model's accuracy on each class of the test data of all [C], or None.
    """
    if plan.evaluation.own is not None:
        own, task = plan.evaluation.own.get(client), plan.tasks[plan.architecture(client)]
        return evaluate.mean(evaluate.scores(task, weights, own, plan.engine)).get("accuracy", NAN) if own else NAN
    if plan.evaluation.shares is None or per_class is None:
        return NAN
    return evaluate.expected_accuracy(per_class, plan.evaluation.shares[client])
