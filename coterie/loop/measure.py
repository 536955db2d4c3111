"""Which numbers a round is judged by: the plan's evaluation, carried out.

Legend: N clients, C classes.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any, NamedTuple, TypeVar

from torch import Tensor

from coterie.core.examples import Examples
from coterie.core.tree import Tree
from coterie.loop import domains, evaluate
from coterie.loop.plan import Plan
from coterie.loop.store import Store
from coterie.processes.team import broadcast_from, owner, owns

T = TypeVar("T")
NAN = float("nan")


def measure_round(plan: Plan, number: int, state: Tree, store: Store) -> dict[str, Any]:
    """test_loss, test_accuracy and further metrics after a round; None where the round is not evaluated, or the
    algorithm trains no classifier. Where clients are few and have test data of their own, `coterie.loop.domains` adds
    its matrix.
    """
    result: dict[str, Any] = {"test_loss": None, "test_accuracy": None}
    if not plan.algorithm.traits.predicts or not plan.evaluation.due(number, plan.rounds):
        return result
    return result | (_of_own_models if plan.algorithm.traits.own_models else _of_one_model)(plan, state, store)


def _of_one_model(plan: Plan, state: Tree, store: Store) -> dict[str, Any]:
    result: dict[str, Any] = {}
    per_class = scored = None
    task, weights = plan.tasks[plan.architecture(plan.ids[0])], _everyones(plan, state, store)
    if plan.evaluation.test is not None:
        scored = evaluate.scores(task, weights, plan.evaluation.test, plan.engine, team=plan.team)
        result |= {f"test_{name}": value for name, value in evaluate.mean(scored).items()}
        per_class = _per_class(plan, plan.ids[0], scored)
    if plan.evaluation.clients:
        own = _each(plan, lambda client: _own_accuracy(plan, state, store, client, per_class))
        result |= _own_summary(list(own.values()))
    names = domains.domains(plan)
    return result | (domains.summary([domains.row(plan, task, weights, names, scored)]) if names else {})


def _everyones(plan: Plan, state: Tree, store: Store) -> Tree:
    """The one model that counts for all clients, on every member of the team. Collective."""
    client = plan.ids[0]
    if not plan.algorithm.traits.pooled:
        return plan.personal(state, store, client)
    held = owns(plan.team, client)
    mine = plan.personal(state, store, client) if held else plan.initial[plan.architecture(client)]
    return broadcast_from(plan.team, mine, by=owner(plan.team, client))


def _each(plan: Plan, measure: Callable[[str], T]) -> dict[str, T]:
    """One measure of every client, in the clients' order, each taken by the member that owns it. Collective."""
    mine = {client: measure(client) for client in plan.ids if owns(plan.team, client)}
    found = {client: value for part in plan.team.gather(mine) for client, value in part.items()}
    return {client: found[client] for client in plan.ids}


class _OfOne(NamedTuple):
    """One client's model: its measures on the test data of all, its accuracy on its own, and on everybody's own, where
    these are wanted.
    """

    means: dict[str, float]
    own: float | None
    row: list[float | None]


def _of_own_models(plan: Plan, state: Tree, store: Store) -> dict[str, Any]:
    """Means over the clients' models, each on the test data of all and on its own."""
    each = list(_each(plan, lambda client: _of_own_model(plan, state, store, client)).values())
    totals: dict[str, float] = {}
    for of_one in each:
        for name, value in of_one.means.items():
            totals[f"test_{name}"] = totals.get(f"test_{name}", 0.0) + value / len(plan.ids)
    own = [of_one.own for of_one in each if of_one.own is not None]
    return {**totals, **(_own_summary(own) if own else {}), **domains.summary([of_one.row for of_one in each])}


def _of_own_model(plan: Plan, state: Tree, store: Store, client: str) -> _OfOne:
    means: dict[str, float] = {}
    per_class = scored = None
    if plan.evaluation.test is not None:
        scored = _scores(plan, state, store, client, plan.evaluation.test)
        means, per_class = evaluate.mean(scored), _per_class(plan, client, scored)
    names, task = domains.domains(plan), plan.tasks[plan.architecture(client)]
    row = domains.row(plan, task, plan.personal(state, store, client), names, scored)
    wanted = plan.evaluation.own is not None or per_class is not None
    return _OfOne(means, _own_accuracy(plan, state, store, client, per_class) if wanted else None, row)


def _own_summary(accuracies: list[float]) -> dict[str, float | None]:
    """Over the clients that can be measured: not those without test data of their own classes."""
    known = [accuracy for accuracy in accuracies if not math.isnan(accuracy)]
    return {
        "own_test_accuracy": sum(known) / len(known) if known else None,
        "own_test_accuracy_worst_tenth": evaluate.worst_tenth(known) if known else None,
    }


def _scores(plan: Plan, state: Tree, store: Store, client: str, examples: Examples) -> evaluate.Scores:
    task = plan.tasks[plan.architecture(client)]
    return evaluate.scores(task, plan.personal(state, store, client), examples, plan.engine)


def _per_class(plan: Plan, client: str, on_all: evaluate.Scores) -> Tensor | None:
    """A model's accuracy on each class [C], where clients' own accuracies derive from it."""
    evaluation, task = plan.evaluation, plan.tasks[plan.architecture(client)]
    if evaluation.own is not None or evaluation.shares is None or evaluation.test is None:
        return None
    y = evaluation.test.labels()
    assert y is not None
    return evaluate.by_class(on_all, y, task.num_classes or 0)


def _own_accuracy(plan: Plan, state: Tree, store: Store, client: str, per_class: Tensor | None) -> float:
    """A client's model on its own test data, or on all test data with the classes as frequent as in its training data;
    nan where neither can be measured.
    """
    if plan.evaluation.own is not None:
        own = plan.evaluation.own.get(client)
        return evaluate.mean(_scores(plan, state, store, client, own)).get("accuracy", NAN) if own else NAN
    if plan.evaluation.shares is None or per_class is None:
        return NAN
    return evaluate.expected_accuracy(per_class, plan.evaluation.shares[client])
