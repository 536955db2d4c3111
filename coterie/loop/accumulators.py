"""Accumulators: they take the updates of a round as they come, and give their aggregate at its end.

With several processes each takes the updates of the clients whose work it did, and all of them get the aggregate.

Legend: n updates of a round, n_r those that the process of rank r took, d numbers in a part of the update.
"""

from __future__ import annotations

from typing import Protocol

import torch
from torch import Tensor

from coterie.core import tree
from coterie.core.aggregators import Aggregator, RunningSum, flatten_like, unflatten_like
from coterie.core.tree import Tree
from coterie.processes.team import ALONE, Team, agree_on_shapes, gather_columns, gather_rows, sum_trees


class Accumulator(Protocol):
    """Takes updates in the order of the cohort, then gives their aggregate."""

    def add(self, update: Tree, weight: float, place: int = 0) -> None:
        """Take one update [d] and its weight > 0; several processes order updates by their places in the cohort."""

    def result(self, team: Team = ALONE) -> Tree:
        """Return the aggregate [d] of what all processes took, which is one update at least. Collective."""


class _Streaming:
    """The accumulator of an aggregator that streams: it holds one tree, however many updates come."""

    def __init__(self) -> None:
        self.sum = RunningSum()

    def add(self, update: Tree, weight: float, place: int = 0) -> None:
        self.sum.add(update, weight)

    def result(self, team: Team = ALONE) -> Tree:
        sums, weight = sum_trees(team, self.sum.total, self.sum.weight)
        return tree.map(lambda t: t / weight, sums)


class _Collecting:
    """The accumulator of every other aggregator: it holds all updates of the round."""

    def __init__(self, aggregator: Aggregator, key: Tensor | None) -> None:
        self.aggregator, self.key = aggregator, key
        self.updates: list[Tree] = []
        self.weights: list[float] = []
        self.places: list[int] = []

    def add(self, update: Tree, weight: float, place: int = 0) -> None:
        self.updates.append(update)
        self.weights.append(weight)
        self.places.append(place)

    def result(self, team: Team = ALONE) -> Tree:
        if team.size == 1:
            order = sorted(range(len(self.places)), key=self.places.__getitem__)
            updates, weights = [self.updates[k] for k in order], [self.weights[k] for k in order]
            return self.aggregator.combine(updates, weights, self.key)
        like, mine, placed = self._rows(team)
        places = [[place for place, _ in theirs] for theirs in placed]
        weights = [weight for _, weight in sorted(pair for theirs in placed for pair in theirs)]
        if self.aggregator.needs_whole_updates:
            whole = gather_rows(team, mine, places, whole=True)
            return self.aggregator.combine([unflatten_like(row, like) for row in whole], weights, self.key)
        columns = gather_rows(team, mine, places, whole=False)
        return unflatten_like(gather_columns(team, self.aggregator.reduce(columns, weights, self.key, team.sum)), like)

    def _rows(self, team: Team) -> tuple[Tree, Tensor, list[list[tuple[int, float]]]]:
        """Return the form of an update, this process's updates [n_r, d], and the (place, weight) of each update by
        rank. Collective.
        """
        own = list(zip(self.places, self.weights, strict=True))
        like, device, placed = agree_on_shapes(team, self.updates[0] if self.updates else None, own)
        nothing = flatten_like(tree.map(lambda x: torch.zeros_like(x, device=device), like), like)[None, :][:0]
        return like, torch.stack([flatten_like(u, like) for u in self.updates]) if self.updates else nothing, placed


def accumulator(aggregator: Aggregator, key: Tensor | None = None) -> Accumulator:
    """Return an empty accumulator for one part of one round's updates, with a key (int64 []) for random rules."""
    return _Streaming() if aggregator.streams else _Collecting(aggregator, key)
