"""The silos' measures, judged and added up.

Of one model: a metric is the sum over the silos of its sums over their test rows, over the sum of the counts, as if all
rows lay in one place. Of models of the clients' own: the mean over the models, each measured on its own silo's rows.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from math import isnan
from typing import Any, NamedTuple

import torch

from coterie.core.task import Metric, Task
from coterie.loop import domains, evaluate
from coterie.loop.measure import ClientMeasures, mean_of_models, summarise_own
from coterie.loop.measure_names import name_measures
from coterie.loop.own_tests import OwnValues, merge_clients
from coterie.loop.plan import Plan
from coterie.silos.message import Message, Unusable, real_number, whole_number

MAX_EXAMPLES = 2**48


class SiloMeasures(NamedTuple):
    """One silo's measures; see `coterie.silos.silo_measures.measure_at_silo`."""

    sums: dict[str, tuple[float, float]]
    totals: dict[str, tuple[list[int], list[float]]]
    broken: int
    own: dict[str, float | None]
    models: list[ClientMeasures]
    own_tests: dict[str, OwnValues]


def read_measures(message: Message, plan: Plan, clients: Sequence[str]) -> SiloMeasures:
    """Return the measures in a silo's answer.

    Raises:
        Unusable: its form is wrong, or it measures what this experiment has not.
    """
    if plan.algorithm.traits.own_models:
        given = _entries(message.fields.get("models"), "models", clients)
        names = {f"{name}" for task in plan.tasks.values() for name in ("loss", *task.metrics)}
        own_tests = _own_tests(message, plan, clients)
        return SiloMeasures({}, {}, 0, {}, [_model(entry, names) for entry in given.values()], own_tests)
    measures = plan.tasks[plan.architecture(plan.ids[0])].metrics
    summed = {name: m for name, m in measures.items() if isinstance(m, Metric)}
    metrics = ("loss", *(name for name in measures if name not in summed))
    sums = {name: _pair(pair, name) for name, pair in _entries(message.fields.get("sums"), "sums", metrics).items()}
    given_totals = _entries(message.fields.get("totals", {}), "totals", summed)
    totals = {name: _totals(value, name, summed[name].size) for name, value in given_totals.items()}
    own = _entries(message.fields.get("own"), "own", clients)
    accuracies = {client: _accuracy(value) for client, value in own.items()}
    broken = message.whole("broken", 0, MAX_EXAMPLES)
    return SiloMeasures(sums, totals, broken, accuracies, [], _own_tests(message, plan, clients))


def merge_measures(silos: Sequence[SiloMeasures], plan: Plan) -> dict[str, Any]:
    """Return test_loss, test_accuracy and further measures of all silos together."""
    models = [model for silo in silos for model in silo.models]
    if plan.algorithm.traits.own_models:
        means = mean_of_models(models, next(iter(plan.tasks.values()))) if models else {}
        return means | _merge_own_tests(silos, plan)
    totals: dict[str, tuple[float, float]] = {}
    for silo in silos:
        for name, (total, count) in silo.sums.items():
            before = totals.get(name, (0.0, 0.0))
            totals[name] = before[0] + total, before[1] + count
    result: dict[str, Any] = {f"test_{name}": total / count for name, (total, count) in totals.items() if count}
    result |= _merge_totals(silos, plan)
    broken = sum(silo.broken for silo in silos)
    if broken:
        result[f"test_{evaluate.BROKEN}"] = broken
    own = [accuracy for silo in silos for accuracy in silo.own.values() if accuracy is not None]
    return result | (summarise_own(own) if own else {}) | _merge_own_tests(silos, plan)


def _merge_own_tests(silos: Sequence[SiloMeasures], plan: Plan) -> dict[str, Any]:
    """Return each client's own measures, and what follows from them, as a simulation has them.

    A simulation that measures nothing but accuracy gives one matrix: every model on every client's rows. Here a model
    meets the rows of its own silo alone, so models of the clients' own have no matrix, and each client's own measures
    stand in its place.
    """
    found = {client: values for silo in silos for client, values in silo.own_tests.items()}
    each = {client: found[client] for client in plan.ids if client in found}
    if not each:
        return {}
    task, own_models = next(iter(plan.tasks.values())), plan.algorithm.traits.own_models
    row = [each[client].values.get("accuracy") if client in each else None for client in plan.ids]
    has_matrix = not own_models and "accuracy" in task.metrics and len(row) <= domains.MAX_DOMAINS
    matrix = domains.summarise([[None if a is None or isnan(a) else a for a in row]]) if has_matrix else {}
    if not own_models and not set(task.metrics) - {"accuracy"}:
        return matrix
    tasks = {client: plan.tasks[plan.architecture(client)] for client in each}
    named = {client: values.name(tasks[client]) for client, values in each.items()}
    return {**merge_clients(named, task), **matrix}


def _merge_totals(silos: Sequence[SiloMeasures], plan: Plan) -> dict[str, Any]:
    """Return the metrics that are no means, of all silos together."""
    task = plan.tasks[plan.architecture(plan.ids[0])]
    values, intervals = dict[str, float](), dict[str, tuple[float, float] | None]()
    for name in dict.fromkeys(name for silo in silos for name in silo.totals):
        metric = task.metrics[name]
        assert isinstance(metric, Metric), "others are refused where the message is read"
        total = torch.zeros(metric.size, dtype=torch.float64)
        for silo in silos:
            places, numbers = silo.totals.get(name, ([], []))
            total[torch.tensor(places, dtype=torch.int64)] += torch.tensor(numbers, dtype=torch.float64)
        values[name] = metric.value(total)
        if metric.has_interval:
            intervals[name] = metric.interval(total)
    return name_measures(values, task, intervals)


def _entries(value: Any, name: str, allowed: Iterable[str]) -> dict[str, Any]:
    """Return a dict whose keys are among those allowed.

    Raises:
        Unusable: it is something else.
    """
    if not isinstance(value, dict) or not value.keys() <= set(allowed):
        raise Unusable(f"has something else under {name} than this experiment measures")
    return value


def _pair(value: Any, name: str) -> tuple[float, float]:
    """Return a sum, which is not finite where a model diverged, and a count."""
    if not isinstance(value, list) or len(value) != 2:
        raise Unusable(f"has no sum and count under {name}")
    count = real_number(value[1], name)
    if not 0 <= count <= MAX_EXAMPLES:
        raise Unusable(f"has a count under {name} that cannot be right")
    return real_number(value[0], name, finite=False), count


def _totals(value: Any, name: str, size: int) -> tuple[list[int], list[float]]:
    """Return the places of a metric's totals that are not 0, and these totals."""
    if not isinstance(value, list) or len(value) != 2 or not all(isinstance(part, list) for part in value):
        raise Unusable(f"has no places and numbers under {name}")
    places, numbers = value
    if len(places) != len(numbers) or len(places) > size:
        raise Unusable(f"has more or fewer numbers than places under {name}")
    read = [whole_number(place, name, 0, size - 1) for place in places]
    if len(set(read)) < len(read):
        raise Unusable(f"names a place twice under {name}")
    return read, [real_number(number, name, finite=False) for number in numbers]


def _own_tests(message: Message, plan: Plan, clients: Sequence[str]) -> dict[str, OwnValues]:
    """Return what a silo has measured on its clients' own test rows; nothing from one that does not say."""
    given = _entries(message.fields.get("own_tests", {}), "own_tests", clients)
    return {client: _own_values(entry, plan.tasks[plan.architecture(client)]) for client, entry in given.items()}


def _own_values(entry: Any, task: Task) -> OwnValues:
    """Return the measures on one client's own test rows."""
    if not isinstance(entry, list) or len(entry) != 3:
        raise Unusable("has something else under own_tests than a count, values and intervals")
    values = _entries(entry[1], "own_tests", ("loss", *task.metrics))
    with_interval = [name for name, m in task.metrics.items() if isinstance(m, Metric) and m.has_interval]
    ends = _entries(entry[2], "own_tests", with_interval)
    numbers = {name: real_number(value, name, finite=False) for name, value in values.items()}
    return OwnValues(
        whole_number(entry[0], "own_tests", 1, MAX_EXAMPLES), numbers, {n: _interval(e, n) for n, e in ends.items()}
    )


def _interval(value: Any, name: str) -> tuple[float, float] | None:
    """Return the ends of an interval, in order, or None."""
    if value is None:
        return None
    if not isinstance(value, list) or len(value) != 2:
        raise Unusable(f"has no interval under {name}")
    low, high = (real_number(end, name) for end in value)
    if low > high:
        raise Unusable(f"has an interval under {name} whose ends are in the wrong order")
    return low, high


def _accuracy(value: Any) -> float | None:
    """Return an accuracy from 0 to 1, or None."""
    if value is None:
        return None
    accuracy = real_number(value, "accuracy")
    if not 0 <= accuracy <= 1:
        raise Unusable("has an accuracy that is not from 0 to 1")
    return accuracy


def _model(entry: Any, metrics: set[str]) -> ClientMeasures:
    """Return the measures of one client's model."""
    fields = _entries(entry, "models", ("means", "broken", "own"))
    means = _entries(fields.get("means"), "means", metrics)
    numbers = {name: real_number(value, name, finite=False) for name, value in means.items()}
    return ClientMeasures(
        numbers, whole_number(fields.get("broken"), "broken", 0, MAX_EXAMPLES), _accuracy(fields.get("own")), []
    )
