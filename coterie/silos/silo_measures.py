"""What a silo measures on its own test rows, as sums and counts that the coordinator can add up."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

from torch import Tensor

from coterie.core.tree import Tree
from coterie.loop import evaluate, own_tests
from coterie.loop.measure import accuracy_per_class, measure_own_model, own_accuracy
from coterie.loop.plan import Plan
from coterie.loop.store import Store


def measure_at_silo(plan: Plan, state: Tree, store: Store, clients: Sequence[str]) -> dict[str, Any]:
    """Return the fields of a silo's answer.

    Args:
        plan: the silo's; its evaluation holds the silo's own test rows.
        state: the model's weights; the server's state where every client has a model of its own.
        store: the states of such clients.
        clients: those that are measured.

    Returns:
        For one model: "sums", metric -> [sum, count] over the silo's test rows; "broken", the rows with outputs that
        are not finite; "totals", metric -> [places, numbers] of its totals that are not 0; "own", client -> the
        model's accuracy on the client's own test data. For models of the clients' own: "models", client -> {"means",
        "broken", "own"}. For both, where clients are asked for: "own_tests", client -> ["examples", "values",
        "intervals"] on its own test data.
    """
    if plan.algorithm.traits.own_models:
        each = {client: measure_own_model(plan, state, store, client) for client in clients}
        models = {
            c: {"means": _without_undefined(m.means), "broken": m.broken, "own": _without_nan(m.own)}
            for c, m in each.items()
        }
        return {"models": models, "own_tests": _own_tests(plan, state, store, clients)}
    task, scores = plan.tasks[plan.architecture(plan.ids[0])], None
    fields: dict[str, Any] = {"sums": {}, "totals": {}, "broken": 0, "own": {}}
    if plan.evaluation.test is not None:
        scores = evaluate.scores(task, state, plan.evaluation.test, plan.engine)
        sums = {n: [float(s.double().sum()), float(c.double().sum())] for n, (s, c) in scores.each.items()}
        fields |= {"broken": evaluate.count_broken(scores)}
        fields |= {"sums": {name: pair for name, pair in sums.items() if name != evaluate.BROKEN}}
        fields |= {"totals": {name: _without_zeros(totals) for name, totals in scores.totals.items()}}
    if plan.evaluation.clients:
        per_class = None if scores is None else accuracy_per_class(plan, plan.ids[0], scores)
        fields["own"] = {client: _without_nan(own_accuracy(plan, state, client, per_class)) for client in clients}
        fields["own_tests"] = _own_tests(plan, state, store, clients)
    return fields


def _own_tests(plan: Plan, state: Tree, store: Store, clients: Sequence[str]) -> dict[str, Any]:
    """Return what was measured on each client's own test rows, where there are some and it is asked for."""
    found = dict[str, Any]()
    for client in clients if plan.evaluation.clients else ():
        task, own = plan.tasks[plan.architecture(client)], plan.algorithm.traits.own_models
        weights = plan.evaluated_weights(state, store, client) if own else state
        values = own_tests.measure_own_data(plan, task, weights, client)
        if values is not None:
            found[client] = [values.examples, values.values, values.intervals]
    return found


def _without_zeros(totals: Tensor) -> list[list[float]]:
    """Return the places of numbers that are not 0, and these numbers."""
    places = totals.nonzero().flatten()
    return [places.tolist(), totals[places].tolist()]


def _without_nan(accuracy: float | None) -> float | None:
    """Return an accuracy; None if it could not be measured."""
    return None if accuracy is None or math.isnan(accuracy) else accuracy


def _without_undefined(means: Mapping[str, float]) -> dict[str, float]:
    """Return the measures that are numbers, without metrics that are not defined for the silo's rows."""
    return {name: value for name, value in means.items() if not math.isnan(value)}
