"""The metrics of a run besides its loss and accuracy, by their names in records and summaries."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

_KNOWN = ("test_loss", "test_accuracy", "test_outputs_not_finite")
_ENDS = ("_low", "_high")
"""After the name of a metric: the ends of its 95 % interval, in a summary."""


def list_metrics(records: Iterable[Mapping[str, Any]]) -> list[str]:
    """Return the names of further metrics on the test data of all, such as "test_auroc", in their order.

    >>> list_metrics([{"test_loss": 1.0}, {"test_loss": 0.5, "test_auroc": None}])
    ['test_auroc']
    """
    names = dict.fromkeys(name for record in records for name in record)
    ends = {f"{name}{end}" for name in names for end in _ENDS}
    return [name for name in names if name.startswith("test_") and name not in _KNOWN and name not in ends]


def name_metric(name: str) -> str:
    """Return a metric's name for people.

    >>> name_metric("test_average_precision")
    'test average precision'
    """
    return name.replace("_", " ")


def interval_of(end: Mapping[str, Any], name: str) -> tuple[float, float] | None:
    """Return the 95 % interval of a metric in a summary; None where it has none.

    >>> interval_of({"test_auroc": 0.9, "test_auroc_low": 0.8, "test_auroc_high": 0.95}, "test_auroc")
    (0.8, 0.95)
    """
    low, high = (end.get(f"{name}{part}") for part in _ENDS)
    return None if low is None or high is None else (low, high)
