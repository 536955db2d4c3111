"""The learning-rate protocol of McMahan et al. 2017: the best rate of each setting must lie inside the grid.

Their section 3 tunes the rate on a multiplicative grid "and ensured that the best one was in the middle of the range".
A setting is what the sweep varies besides learning rates and rng seeds. Its best rates need the fewest rounds to the
target, if every seed reached it; otherwise they have the highest mean test accuracy, or without one the lowest mean
test loss.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from coterie.report.run_reader import Run
from coterie.report.seed_groups import SeedGroup
from coterie.sweep.axes import Axis, round_digits, value_text
from coterie.sweep.points import Point, short_names

Score = tuple[int, float]
"""How good a group is: larger is better; groups that reached the target come before those that did not."""


@dataclass(frozen=True)
class BestRate:
    """The best value of a learning rate in one setting.

    Attributes:
        key: of the learning rate.
        setting: the other values; empty where nothing else is varied.
        value: the best.
        beyond: the value that follows outside the grid, where the best is its first or its last; otherwise None.
    """

    key: str
    setting: Mapping[str, Any]
    value: float
    beyond: float | None

    def __str__(self) -> str:
        names = short_names([*self.setting])
        where = ", ".join(f"{names[key]} = {value_text(value)}" for key, value in self.setting.items())
        place = "inside the grid"
        if self.beyond is not None:
            end = "smallest" if self.beyond < self.value else "largest"
            place = f"the {end} of the grid, so a better one may lie outside"
        return f"best {self.key}{f' with {where}' if where else ''}: {value_text(self.value)}, {place}"


def find_best_rates(axes: Sequence[Axis], points: Sequence[Point], runs: Mapping[str, Run]) -> list[BestRate]:
    """Return the best value of each learning rate that has several, for each setting of the other keys.

    Args:
        axes: what the sweep varies.
        points: of the sweep.
        runs: by the name of their point; a run that failed is left out, or its summary says so.
    """
    rates = {axis.key: axis for axis in axes if axis.is_learning_rate}
    best: dict[str, tuple[Score, Mapping[str, Any]]] = {}
    for values, group in _groups(points, runs):
        score = score_of(group)
        where = repr({key: value for key, value in values.items() if key not in rates})
        if score is not None and (where not in best or score > best[where][0]):
            best[where] = score, values
    found = []
    for _, best_values in best.values():
        setting = {key: value for key, value in best_values.items() if key not in rates}
        found += [
            BestRate(key, setting, best_values[key], beyond(axis, best_values[key])) for key, axis in rates.items()
        ]
    return found


def _groups(points: Sequence[Point], runs: Mapping[str, Run]) -> list[tuple[dict[str, Any], SeedGroup]]:
    """Return the values without the rng seed, and the runs with them, where no seed is missing."""
    alike: dict[str, list[Point]] = {}
    for point in points:
        alike.setdefault(repr(point.setting), []).append(point)
    return [
        (each[0].setting, SeedGroup(each[0].name, [runs[point.name] for point in each], each[0].setting))
        for each in alike.values()
        if all(point.name in runs for point in each)
    ]


def score_of(group: SeedGroup) -> Score | None:
    """Return how good a group is; None where a run failed, or has no result."""
    if any(run.end.get("failure") or not run.over for run in group.runs):
        return None
    rounds = group.rounds_to(None)
    if rounds is not None:
        return 1, -rounds.value
    accuracy, loss = group.mean_of("test_accuracy"), group.mean_of("test_loss")
    if accuracy is not None:
        return 0, accuracy.value
    return None if loss is None else (0, -loss.value)


def beyond(axis: Axis, best: float) -> float | None:
    """Return the value that follows the best outside the grid, by the ratio of the grid's two values there.

    >>> lr = Axis("algorithm.lr", ("0.01", "0.1", "0.5"), (0.01, 0.1, 0.5))
    >>> beyond(lr, 0.5), beyond(lr, 0.1), beyond(lr, 0.01)
    (2.5, None, 0.001)
    """
    values = sorted(axis.values)
    if best == values[-1]:
        return round_digits(values[-1] * values[-1] / values[-2])
    return round_digits(values[0] * values[0] / values[1]) if best == values[0] else None
