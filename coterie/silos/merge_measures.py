"""The silos' measures, judged and added up.

Of one model: a metric is the sum over the silos of its sums over their test rows, over the sum of the counts, as if all
rows lay in one place. Of models of the clients' own: the mean over the models, each measured on its own silo's rows.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any, NamedTuple

import torch

from coterie.core.task import Metric
from coterie.loop import evaluate
from coterie.loop.measure import ClientMeasures, mean_of_models, summarise_own
from coterie.loop.measure_names import name_measures
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


def read_measures(message: Message, plan: Plan, clients: Sequence[str]) -> SiloMeasures:
    """Return the measures in a silo's answer.

    Raises:
        Unusable: its form is wrong, or it measures what this experiment has not.
    """
    if plan.algorithm.traits.own_models:
        given = _entries(message.fields.get("models"), "models", clients)
        names = {f"{name}" for task in plan.tasks.values() for name in ("loss", *task.metrics)}
        return SiloMeasures({}, {}, 0, {}, [_model(entry, names) for entry in given.values()])
    measures = plan.tasks[plan.architecture(plan.ids[0])].metrics
    summed = {name: m for name, m in measures.items() if isinstance(m, Metric)}
    metrics = ("loss", *(name for name in measures if name not in summed))
    sums = {name: _pair(pair, name) for name, pair in _entries(message.fields.get("sums"), "sums", metrics).items()}
    given_totals = _entries(message.fields.get("totals", {}), "totals", summed)
    totals = {name: _totals(value, name, summed[name].size) for name, value in given_totals.items()}
    own = _entries(message.fields.get("own"), "own", clients)
    accuracies = {client: _accuracy(value) for client, value in own.items()}
    return SiloMeasures(sums, totals, message.whole("broken", 0, MAX_EXAMPLES), accuracies, [])


def merge_measures(silos: Sequence[SiloMeasures], plan: Plan) -> dict[str, Any]:
    """Return test_loss, test_accuracy and further measures of all silos together."""
    models = [model for silo in silos for model in silo.models]
    if plan.algorithm.traits.own_models:
        return mean_of_models(models, next(iter(plan.tasks.values()))) if models else {}
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
    return result | (summarise_own(own) if own else {})


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
