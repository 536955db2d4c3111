"""The aggregate of a round whose updates lie in several processes.

Legend: n updates of a round, n_r those that the process of rank r took, d numbers in a part of the update.
"""

from __future__ import annotations

import torch
from torch import Tensor

from coterie.core import tree
from coterie.core.aggregators import Accumulator, AllUpdates, RunningMean, flatten_like, unflatten_like
from coterie.core.tree import Tree
from coterie.processes.team import Team, agree_on_shapes, gather_columns, gather_rows, sum_trees


def aggregate_of_all(team: Team, own: Accumulator) -> Tree:
    """Return the aggregate [d] of the updates that all processes took. Collective: every process calls it.

    Args:
        team: the processes of the run.
        own: what this process took. One process has taken an update at least.
    """
    if team.size == 1:
        return own.result()
    if isinstance(own, RunningMean):
        total, weight = sum_trees(team, own.total, own.weight)
        return tree.map(lambda t: t / weight, total)
    assert isinstance(own, AllUpdates), "there are two kinds of accumulators"
    like, rows, notes = _rows(team, own)
    places = [[place for place, _ in note] for note in notes]
    weights = [weight for _, weight in sorted(pair for note in notes for pair in note)]
    if own.aggregator.needs_whole_updates:
        whole = gather_rows(team, rows, places, whole=True)
        return own.aggregator.combine([unflatten_like(row, like) for row in whole], weights, own.key)
    columns = gather_rows(team, rows, places, whole=False)
    return unflatten_like(gather_columns(team, own.aggregator.reduce(columns, weights, own.key, team.sum)), like)


def _rows(team: Team, own: AllUpdates) -> tuple[Tree, Tensor, list[list[tuple[int, float]]]]:
    """Return the form of an update, this process's updates [n_r, d], and the (place, weight) of each update by rank.

    Collective: every process calls it.
    """
    pairs = list(zip(own.places, own.weights, strict=True))
    like, device, notes = agree_on_shapes(team, own.updates[0] if own.updates else None, pairs)
    if own.updates:
        return like, torch.stack([flatten_like(update, like) for update in own.updates]), notes
    zeros = tree.map(lambda x: torch.zeros_like(x, device=device), like)
    return like, flatten_like(zeros, like)[None, :][:0], notes
