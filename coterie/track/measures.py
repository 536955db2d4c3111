"""The metrics of a run besides its loss and accuracy, by their names in records and summaries."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

_KNOWN = ("test_loss", "test_accuracy", "test_outputs_not_finite")


def list_metrics(records: Iterable[Mapping[str, Any]]) -> list[str]:
    """Return the names of further metrics on the test data of all, such as "test_auroc", in their order.

    >>> list_metrics([{"test_loss": 1.0}, {"test_loss": 0.5, "test_auroc": None}])
    ['test_auroc']
    """
    names = dict.fromkeys(name for record in records for name in record)
    return [name for name in names if name.startswith("test_") and name not in _KNOWN]


def name_metric(name: str) -> str:
    """Return a metric's name for people.

    >>> name_metric("test_average_precision")
    'test average precision'
    """
    return name.replace("_", " ")
