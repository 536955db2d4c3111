"""When a run ends before its last round: a metric reaches its target, or no longer improves."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from coterie.track.rounds_file import Record


@dataclass(frozen=True)
class Goal:
    """A metric by its name in a record, such as "test_auroc", and which values of it are better.

    Attributes:
        measure: the name.
        higher_is_better: whether larger values are better.
    """

    measure: str = "test_accuracy"
    higher_is_better: bool = True

    def value(self, record: Record) -> float | None:
        """Return the metric in a record; None where it was not measured, or is not a finite number."""
        found = record.get(self.measure)
        is_number = isinstance(found, int | float) and math.isfinite(found)
        return float(found) if is_number and found is not None else None

    def reaches(self, value: float, target: float) -> bool:
        """Return whether a value is as good as the target, or better."""
        return value >= target if self.higher_is_better else value <= target

    def best(self, records: Iterable[Record]) -> float | None:
        """Return the best value on record, or None."""
        values = [value for record in records if (value := self.value(record)) is not None]
        return (max if self.higher_is_better else min)(values, default=None)


@dataclass(frozen=True)
class Stopping:
    """What ends a run early.

    Attributes:
        goal, target: the value of a metric at which the run ends; a target of None is none.
        watched, patience: after how many evaluations without a better value of a metric the run ends; None: never.

    >>> stopping = Stopping(watched=Goal("test_loss", False), patience=2)
    >>> losses = [3.0, 2.0, 2.5, 2.25]
    >>> [stopping.why([{"test_loss": loss} for loss in losses[:n]]) for n in (1, 2, 3, 4)]
    [None, None, None, 'patience']
    """

    goal: Goal = Goal()
    target: float | None = None
    watched: Goal = Goal()
    patience: int | None = None

    def why(self, records: Sequence[Record]) -> str | None:
        """Return why the run ends after these records: "target" or "patience"; None where it goes on."""
        value = self.goal.value(records[-1]) if records else None
        if self.target is not None and value is not None and self.goal.reaches(value, self.target):
            return "target"
        if self.patience is not None and records and self.watched.value(records[-1]) is not None:
            return "patience" if self.evaluations_without_better(records) >= self.patience else None
        return None

    def evaluations_without_better(self, records: Sequence[Record]) -> int:
        """Return how many evaluations there were since the best value."""
        since, best = 0, None
        for record in records:
            value = self.watched.value(record)
            if value is None:
                continue
            better = best is None or (value > best if self.watched.higher_is_better else value < best)
            since, best = (0, value) if better else (since + 1, best)
        return since
