"""Every measure on each client's own test data, such as the area under the ROC curve at each hospital.

The accuracy alone is measured for any number of clients; see `coterie.loop.measure`. This is for tasks with further
metrics. A client whose data do not define a metric, or define it by a single example of a class, has none, and its
entry says why.
"""

from __future__ import annotations

import math
from typing import Any, NamedTuple

from coterie.core.task import Metric, Task
from coterie.core.tree import Tree
from coterie.loop import evaluate
from coterie.loop.domains import MAX_DOMAINS
from coterie.loop.measure_names import name_measures
from coterie.loop.plan import Plan

OwnTests = dict[str, dict[str, Any]]
"""Client -> "examples" and the measures on its own test data, by the names of a record."""


class OwnValues(NamedTuple):
    """What was measured on one client's own test data: of how many examples, and by the metrics' own names."""

    examples: int
    values: dict[str, float]
    intervals: dict[str, tuple[float, float] | None]

    def name(self, task: Task) -> dict[str, Any]:
        """Return the client's entry in a record."""
        needs = {name: m.needs_of_own for name, m in task.metrics.items() if isinstance(m, Metric)}
        return {"examples": self.examples, **name_measures(self.values, task, self.intervals, needs)}


def measure_clients(plan: Plan, task: Task, weights: Tree, client: str) -> OwnTests:
    """Return the measures on a client's own test data; for the one client of pooled data those on each client's.

    Empty where nothing but the loss and the accuracy is measured, or where clients' own data are not asked for.

    Args:
        plan: the federation.
        task, weights: of the model.
        client: whose model it is, or by which it is measured.
    """
    own = plan.evaluation.own
    if own is None or not plan.evaluation.clients or not set(task.metrics) - {"accuracy"}:
        return {}
    pooled = plan.algorithm.traits.pooled
    names = [name for name in own if name not in plan.ids] if pooled else [client]
    found = {name: measure_own_data(plan, task, weights, name) for name in names}
    return {name: values.name(task) for name, values in found.items() if values}


def measure_own_data(plan: Plan, task: Task, weights: Tree, client: str) -> OwnValues | None:
    """Return the measures of a model on a client's own test data; None where it has none."""
    examples = (plan.evaluation.own or {}).get(client)
    if not examples:
        return None
    scores = evaluate.scores(task, weights, examples, plan.engine)
    values = evaluate.mean(scores)
    for name, metric in scores.metrics.items():
        values[name] = values[name] if metric.is_enough(scores.totals[name]) else math.nan
    return OwnValues(len(examples), values, dict(evaluate.intervals(scores)))


def merge_clients(each: OwnTests, task: Task) -> dict[str, Any]:
    """Return own_test_NAME, the mean over the clients for which a metric is defined, and the clients' own measures.

    These, as "own_tests", are left out where the clients are more than a reader can take in.
    """
    if not each:
        return {}
    names = [name for name in task.metrics if name != "accuracy"]
    means = {f"own_test_{name}": _mean([found.get(f"test_{name}") for found in each.values()]) for name in names}
    return {**means, **({"own_tests": each} if len(each) <= MAX_DOMAINS else {})}


def _mean(values: list[float | None]) -> float | None:
    known = [value for value in values if value is not None]
    return sum(known) / len(known) if known else None
