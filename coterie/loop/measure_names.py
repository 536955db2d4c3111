"""What measures are called in a record."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

from coterie.core.task import Metric, Task


def name_measures(
    values: Mapping[str, float],
    task: Task,
    intervals: Mapping[str, tuple[float, float] | None] | None = None,
    needs: Mapping[str, str | None] | None = None,
) -> dict[str, Any]:
    """Return measures by the names of a record: None for a metric that is not defined, and "undefined" says why.

    "intervals" has the ends of the metrics' intervals, where given; None where one cannot be told. `needs` says by
    metric what these examples must have, where it is not what the metric says.
    """
    metrics = {name: m for name, m in task.metrics.items() if isinstance(m, Metric)}
    missing = [name for name in metrics if name in values and math.isnan(values[name])]
    named: dict[str, Any] = {f"test_{name}": None if name in missing else value for name, value in values.items()}
    why = {f"test_{name}": f"it needs {(needs or {}).get(name) or metrics[name].needs}" for name in missing}
    ends = {f"test_{name}": None if pair is None else list(pair) for name, pair in (intervals or {}).items()}
    return named | ({"undefined": why} if why else {}) | ({"intervals": ends} if ends else {})
