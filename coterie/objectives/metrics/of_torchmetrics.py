"""Metrics of torchmetrics whose states are sums, so that they can be added up over clients, processes and silos.

This file alone imports torchmetrics.

Legend: K numbers in all states together.
"""

from __future__ import annotations

import copy
import math
import warnings
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from coterie.core.errors import Mistake, reason
from coterie.core.packages import import_package
from coterie.core.task import Metric

Predict = Callable[[Tensor, Tensor | None], tuple[Tensor, Tensor]]
"""(outputs, y) -> what the metric's `update` takes."""


class SummedMetric(Metric):
    """A metric of torchmetrics: its states are the totals, and its `compute` the value.

    Args:
        metric: the metric, all of whose states are reduced by sums.
        predict: makes what `metric.update` takes from outputs and labels; by default they are passed on, on the CPU.
        name: what messages call it.
        needs: see `coterie.core.task.Metric`.

    Raises:
        Mistake: a state is not a sum but, say, a list of all predictions.
    """

    def __init__(
        self, metric: Any, predict: Predict | None = None, name: str | None = None, needs: str | None = None
    ) -> None:
        self.name = name or type(metric).__name__
        reductions = {state: getattr(f, "__name__", None) for state, f in metric._reductions.items()}
        others = [state for state, f in reductions.items() if f != "dim_zero_sum"]
        others += [state for state, default in metric._defaults.items() if not isinstance(default, Tensor)]
        if others or not reductions:
            kept = f"keeps {others[0]}, which is not a sum" if others else "keeps no sums"
            raise Mistake(
                f"{self.name} {kept}, so it cannot be added up over clients; choose one that does, such as one with "
                "`thresholds` for a curve",
                key="metrics",
            )
        self.metric = copy.deepcopy(metric).cpu().set_dtype(torch.float64)
        self.metric.reset()
        self.predict = predict or _pass_on
        self.higher_is_better = True if metric.higher_is_better is None else bool(metric.higher_is_better)
        self.needs = needs or "examples that it can be computed from"
        self.size = sum(default.numel() for default in self.metric._defaults.values())

    def totals(self, outputs: Tensor, y: Tensor | None) -> Tensor:
        """Return the states after an update with these outputs and labels, [K].

        Raises:
            Mistake: the metric cannot take them.
        """
        predicted, labels = self.predict(outputs, y)
        metric = self._fresh()
        if len(labels):
            try:
                metric.update(predicted, labels)
            except (ValueError, RuntimeError, IndexError, TypeError) as error:
                raise Mistake(f"{self.name} cannot take these outputs and labels ({reason(error)})") from error
        states = torch.cat([getattr(metric, name).detach().double().reshape(-1).cpu() for name in metric._defaults])
        if len(states) != self.size:
            raise Mistake(f"{self.name} keeps {len(states)} sums for these labels, and {self.size} at the start")
        return states

    def value(self, totals: Tensor) -> float:
        """Return what the metric computes from states [K], its mean where these are several numbers."""
        metric, start = self._fresh(), 0
        for name, default in metric._defaults.items():
            part = totals[start : start + default.numel()]
            setattr(metric, name, part.reshape(default.shape).to(getattr(metric, name).dtype))
            start += default.numel()
        if not bool(totals.any()):
            return math.nan
        metric._update_count = 1
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            try:
                found = metric.compute()
            except ValueError:  # as R2 of fewer than two examples
                return math.nan
        if not isinstance(found, Tensor):
            raise Mistake(f"{self.name} computes a {type(found).__name__}, not a number", key="metrics")
        return float(found.double().mean())

    def _fresh(self) -> Any:
        """Return a copy of the metric without any examples."""
        metric = copy.deepcopy(self.metric)
        metric.reset()
        return metric


class OfColumns(Metric):
    """The mean over L columns of predicted numbers of a metric, which each column has for itself.

    Args:
        metric: of one column [P]. columns: L.
        predict: makes numbers [P, L] and labels [P, L] from outputs and labels.
    """

    def __init__(self, metric: SummedMetric, columns: int, predict: Predict) -> None:
        self.metric, self.columns, self.predict = metric, columns, predict
        self.higher_is_better, self.needs = metric.higher_is_better, metric.needs
        self.size = columns * metric.size

    def totals(self, outputs: Tensor, y: Tensor | None) -> Tensor:
        """Return the totals of all columns, one after another."""
        predicted, labels = self.predict(outputs, y)
        return torch.cat([self.metric.totals(predicted[:, k], labels[:, k]) for k in range(self.columns)])

    def value(self, totals: Tensor) -> float:
        """Return the mean of the columns' values."""
        return sum(self.metric.value(part) for part in totals.reshape(self.columns, -1)) / self.columns


def _pass_on(outputs: Tensor, y: Tensor | None) -> tuple[Tensor, Tensor]:
    assert y is not None
    outputs, y = outputs.detach().cpu(), y.cpu()
    outputs = outputs.squeeze(-1) if outputs.shape == (*y.shape, 1) else outputs
    return outputs.double(), y.double() if y.is_floating_point() else y


def is_torchmetric(value: object) -> bool:
    """Return whether a value is a metric of torchmetrics, without importing it."""
    return any(c.__module__ == "torchmetrics.metric" and c.__name__ == "Metric" for c in type(value).__mro__)


def make(name: str, place: str, **arguments: Any) -> Any:
    """Return the metric of torchmetrics at "module:class", for the metric that a user calls `name`.

    Raises:
        Mistake: torchmetrics is not installed.
    """
    module, _, cls = place.partition(":")
    package = import_package(f"torchmetrics{module and '.'}{module}", "metrics", "metrics", name)
    return getattr(package, cls)(**arguments)
