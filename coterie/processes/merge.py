"""The aggregate of a round whose updates lie in several processes.

Legend: n updates of a round, n_r those that the process of rank r took, d numbers in a part of the update.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import torch
from torch import Tensor

from coterie.core import tree
from coterie.core.aggregators import Accumulator, AllUpdates, RunningMean, flatten_like, unflatten_like
from coterie.core.tree import Tree
from coterie.processes.team import Form, Team, find_form, form_of, gather_columns, gather_rows, sum_parts


class Taken(NamedTuple):
    """What one process took, in a few bytes: what the others must know before they aggregate."""

    form: Form
    weights: list[tuple[int, float]]  # (place, weight) of each update; (0, sum of weights) for a running mean


def describe_taken(own: Accumulator) -> Taken:
    """Return what the other processes must know about what this one took."""
    if isinstance(own, RunningMean):
        return Taken(form_of(own.total), [(0, own.weight)])
    assert isinstance(own, AllUpdates), "there are two kinds of accumulators"
    pairs = list(zip(own.places, own.weights, strict=True))
    return Taken(None if own.like is None else (own.like, own.device), pairs)


def aggregate_of_all(team: Team, own: Accumulator, taken: Sequence[Taken]) -> Tree:
    """Return the aggregate [d] of the updates that all processes took. Collective: every process calls it.

    Args:
        team: the processes of the run.
        own: what this process took.
        taken: what each process took, by rank. One of them has taken an update at least.
    """
    if team.size == 1:
        return own.result()
    like, device = find_form([each.form for each in taken])
    if isinstance(own, RunningMean):
        weight = sum(weight for each in taken for _, weight in each.weights)
        return tree.map(lambda t: t / weight, sum_parts(team, own.total, like, device))
    assert isinstance(own, AllUpdates), "there are two kinds of accumulators"
    places = [[place for place, _ in each.weights] for each in taken]
    weights = [weight for _, weight in sorted(pair for each in taken for pair in each.weights)]
    if own.aggregator.needs_whole_updates:
        whole = gather_rows(team, _rows(own, like, device), places, whole=True)
        return own.aggregator.combine([unflatten_like(row, like) for row in whole], weights, own.key)
    columns = gather_rows(team, _rows(own, like, device), places, whole=False)
    return unflatten_like(gather_columns(team, own.aggregator.reduce(columns, weights, own.key, team.sum)), like)


def _rows(own: AllUpdates, like: Tree, device: str) -> Tensor:
    """Return this process's updates [n_r, d] in the form of all."""
    if own.like is not None:
        assert list(tree.flatten(own.like)) == list(tree.flatten(like)), "every process runs the same algorithm"
        return own.give_rows(range(len(own.places)))
    zeros = tree.map(lambda x: torch.zeros_like(x, device=device), like)
    return flatten_like(zeros, like)[None, :][:0]
