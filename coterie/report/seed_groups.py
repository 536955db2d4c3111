"""Runs that differ in nothing but their rng seed, as one: the mean of a result, its standard error, and speed-ups."""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

from coterie.report.line_chart import Curve
from coterie.report.run_reader import Run
from coterie.track import rounds_to_target
from coterie.track.summary import accuracy_curve

RNG_SEED = "rng_seed"


class Mean(NamedTuple):
    """The mean of some numbers, and its standard error, which one number alone does not have."""

    value: float
    error: float | None


@dataclass(frozen=True)
class SeedGroup:
    """Runs with the same settings and different rng seeds; often a single run.

    Attributes:
        settings: key -> value, of the keys in which the groups differ.
    """

    name: str
    runs: Sequence[Run]
    settings: Mapping[str, Any]

    def mean_of(self, measure: str) -> Mean | None:
        """Return the mean of an entry of summary.json; None unless every run has it and none has failed."""
        return None if any(run.end.get("failure") for run in self.runs) else mean_of(self._ends(measure))

    def _ends(self, measure: str) -> list[float | None]:
        return [run.end.get(measure) for run in self.runs]

    def rounds_to(self, target: float | None) -> Mean | None:
        """Return the mean number of rounds to a target; None unless every run reached it.

        Args:
            target: an accuracy; by default each run's own target.
        """
        return mean_of([count_rounds(run, target) for run in self.runs])

    def curve(self, measure: str, x: Callable[[Run], Sequence[float]]) -> Curve:
        """Return the mean curve of a measure, with a band of one standard error where there are several runs.

        It has the rounds that every run has measured, at the mean of their x.

        Args:
            measure: such as "test_accuracy".
            x: returns where each round of a run lies on the axis.
        """
        if len(self.runs) == 1:
            return Curve(self.name, x(self.runs[0]), self.runs[0].measure(measure))
        xs, ys, band = [], [], []
        columns = [list(zip(x(run), run.measure(measure), strict=True)) for run in self.runs]
        for points in zip(*columns, strict=False):
            mean = mean_of([y for _, y in points])
            if mean is not None and mean.error is not None:
                xs.append(sum(place for place, _ in points) / len(points))
                ys.append(mean.value)
                band.append((mean.value - mean.error, mean.value + mean.error))
        return Curve(self.name, xs, ys, band)


def mean_of(values: Sequence[float | None]) -> Mean | None:
    """Return the mean and its standard error, the sample's standard deviation / sqrt(n); None if a value is None.

    >>> mean_of([1.0, 3.0]), mean_of([4.0]), mean_of([1.0, None])
    (Mean(value=2.0, error=1.0), Mean(value=4.0, error=None), None)
    """
    known = [float(value) for value in values if value is not None]
    if len(known) < len(values) or not known:
        return None
    mean = math.fsum(known) / len(known)
    if len(known) == 1:
        return Mean(mean, None)
    variance = math.fsum((value - mean) ** 2 for value in known) / (len(known) - 1)
    return Mean(mean, math.sqrt(variance / len(known)))


def count_rounds(run: Run, target: float | None) -> float | None:
    """Return after how many rounds a run reached an accuracy, by default its own target; None if it did not."""
    if target is None:
        own: float | None = run.end["rounds_to_target"]
        return own
    return rounds_to_target(accuracy_curve(run.rounds), target)


def speed_up(baseline: float | None, rounds: float | None) -> float | None:
    """Return the baseline's rounds / these, as the FedAvg paper's tables give it; None where one is None, or 0.

    >>> speed_up(316.0, 87.0), speed_up(None, 87.0)
    (3.632183908045977, None)
    """
    return None if baseline is None or not rounds else baseline / rounds


def group_runs(runs: Sequence[Run], names: Sequence[str], differing: Sequence[str]) -> list[SeedGroup]:
    """Return the runs in groups that differ in their rng seed alone, in the order of each group's first run.

    If two runs with the same settings have the same seed too, they are not repetitions, and each is a group.

    Args:
        runs: of any settings.
        names: of the runs.
        differing: the keys in which the runs differ.
    """
    keys = [key for key in differing if key != RNG_SEED]
    groups: dict[str, list[int]] = {}
    for place, run in enumerate(runs):
        settings = {key: value for key, value in run.config.items() if key != RNG_SEED}
        groups.setdefault(json.dumps(settings, sort_keys=True, default=str), []).append(place)
    seeds = [{str(runs[k].config.get(RNG_SEED)) for k in places} for places in groups.values()]
    if any(len(each) < len(places) for each, places in zip(seeds, groups.values(), strict=True)):
        groups = {name: [place] for place, name in enumerate(names)}
    return [_make_group([runs[k] for k in places], [names[k] for k in places], keys) for places in groups.values()]


def _make_group(runs: Sequence[Run], names: Sequence[str], keys: Sequence[str]) -> SeedGroup:
    settings = {key: runs[0].config.get(key) for key in keys}
    return SeedGroup(_shared_name(names), runs, settings)


def _shared_name(names: Sequence[str]) -> str:
    """Return the name of a run, or what the names of several have in common, without their seeds.

    >>> _shared_name(["lr=0.1,rng_seed=0", "lr=0.1,rng_seed=1"]), _shared_name(["a", "b"]), _shared_name(["a"])
    ('lr=0.1', 'a and 1 more', 'a')
    """
    if len(names) == 1:
        return names[0]
    parts = [[part for part in name.split(",") if not part.startswith(f"{RNG_SEED}=")] for name in names]
    shared = ",".join(parts[0])
    return shared if shared and all(each == parts[0] for each in parts) else f"{names[0]} and {len(names) - 1} more"
