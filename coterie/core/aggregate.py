"""How the updates of a round become one: aggregators, as types that say what they need to see.

A kind is a type, so that what cannot work together fails when it is put together. `Sum` needs one pass and no memory;
the others hold the round's updates until all are in.

Legend: n clients of the round, d numbers in a subtree of the update, m vectors that a mixing leaves.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Protocol, TypeAlias

import torch
from torch import Tensor

from coterie.core import rng, tree
from coterie.core.team import ALONE, Team, joined, likeness, rows, total
from coterie.core.tree import Tree


@dataclass(frozen=True)
class Sum:
    """The weighted mean, sum_i p_i U_i / sum_i p_i: associative, so it streams (memory O(d)) and can be summed in any
    place.
    """


@dataclass(frozen=True)
class Coordinatewise:
    """A rule that treats coordinates alike and apart: `rule` maps [n, d] to [d]. Weights are ignored."""

    rule: Callable[[Tensor], Tensor]


@dataclass(frozen=True)
class Geometric:
    """A linear combination of the updates whose coefficients depend on their inner products alone: `coefficients` maps
    the Gram matrix, float64 [n, n], to [n]. Weights are ignored."""

    coefficients: Callable[[Tensor], Tensor]


@dataclass(frozen=True)
class Mixing:
    """A step before a rule, which sees linear combinations of the round's updates instead of the updates.

    Attributes:
        matrix: (Gram matrix, float64 [n, n], key []) -> float64 [m, n], one row for each vector that the rule sees. The
            key is for random steps.
        of_differences: it takes zero for a harmless update, as clipping at a given norm does, and so makes sense for
            differences of weights alone.
    """

    matrix: Callable[[Tensor, Tensor], Tensor]
    of_differences: bool = False


@dataclass(frozen=True)
class Mixed:
    """A rule after one or more mixings, first to last. Weights are ignored.

    A chain of mixings is one matrix [m, n], whose choice needs the Gram matrix alone; after that, the rule treats
    coordinates as it always does.
    """

    mixings: tuple[Mixing, ...]
    inner: Sum | Coordinatewise | Geometric


@dataclass(frozen=True)
class Composite:
    """A rule in stages over a subtree with several parts, each stage done by the aggregator `inner`.

    `rule(updates, combine)` gets the round's subtrees and `combine`, which reduces one tree per client to one tree.
    """

    rule: Callable[[list[Tree], Combine], Tree]
    inner: Sum | Coordinatewise | Geometric | Mixed


Aggregator: TypeAlias = Sum | Coordinatewise | Geometric | Mixed | Composite
Combine: TypeAlias = Callable[[Sequence[Tree]], Tree]


class Accumulator(Protocol):
    """Takes updates in the cohort's order, then gives their aggregate."""

    def add(self, update: Tree, weight: float, place: int = 0) -> None:
        """Take one update [d] and its weight > 0; a team orders updates by their clients' places in the cohort."""

    def result(self, team: Team = ALONE) -> Tree:
        """The aggregate [d] of what all members of the team took, one update at least. Collective."""


class _Running:
    """`Sum`: holds one tree, however many updates come."""

    def __init__(self) -> None:
        self.total: Tree | None = None
        self.weight = 0.0

    def add(self, update: Tree, weight: float, place: int = 0) -> None:
        if self.total is None:
            self.total = tree.map(lambda u: u * weight, update)
        else:
            tree.map(lambda t, u: t.add_(u, alpha=weight), self.total, update)
        self.weight += weight

    def result(self, team: Team = ALONE) -> Tree:
        sums, weight = total(team, self.total, self.weight)
        return tree.map(lambda t: t / weight, sums)


class _Collected:
    """Every other kind: holds all updates of the round."""

    def __init__(self, aggregator: Coordinatewise | Geometric | Mixed | Composite, key: Tensor | None) -> None:
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
            return combine(self.aggregator, updates, weights, self.key)
        like, mine, placed = self._rows(team)
        places = [[place for place, _ in theirs] for theirs in placed]
        weights = [weight for _, weight in sorted(pair for theirs in placed for pair in theirs)]
        if isinstance(self.aggregator, Composite):  # its stages may look at several parts of an update at once
            whole = rows(team, mine, places, whole=True)
            return combine(self.aggregator, [_tree(row, like) for row in whole], weights, self.key)
        columns = rows(team, mine, places, whole=False)
        return _tree(joined(team, reduced(self.aggregator, columns, weights, self.key, team)), like)

    def _rows(self, team: Team) -> tuple[Tree, Tensor, list[list[tuple[int, float]]]]:
        """What an update looks like, this member's as rows [n_r, d], and of every member, by rank, its updates' places
        and weights. Collective.
        """
        own = list(zip(self.places, self.weights, strict=True))
        like, device, placed = likeness(team, self.updates[0] if self.updates else None, own)
        nothing = _vector(tree.map(lambda x: torch.zeros_like(x, device=device), like), like)[None, :][:0]
        return like, torch.stack([_vector(u, like) for u in self.updates]) if self.updates else nothing, placed


def accumulator(aggregator: Aggregator, key: Tensor | None = None) -> Accumulator:
    """An empty accumulator for one subtree of one round, with a key (int64 []) for what is random in it."""
    return _Running() if isinstance(aggregator, Sum) else _Collected(aggregator, key)


def combine(
    aggregator: Aggregator, updates: Sequence[Tree], weights: Sequence[float], key: Tensor | None = None
) -> Tree:
    """The aggregate of updates that are all at hand.

    >>> u = [{"a": torch.tensor([1.0])}, {"a": torch.tensor([4.0])}]
    >>> combine(Sum(), u, [2.0, 1.0])
    {'a': tensor([2.])}
    """
    if isinstance(aggregator, Composite):
        inner = aggregator.inner
        return aggregator.rule(list(updates), lambda parts: combine(inner, parts, weights, key))
    if isinstance(aggregator, Sum):
        running = _Running()
        for update, weight in zip(updates, weights, strict=True):
            running.add(update, weight)
        return running.result()
    matrix = torch.stack([_vector(u, updates[0]) for u in updates])  # [n, d]
    return _tree(reduced(aggregator, matrix, weights, key), updates[0])


def reduced(
    aggregator: Sum | Coordinatewise | Geometric | Mixed,
    matrix: Tensor,
    weights: Sequence[float],
    key: Tensor | None = None,
    team: Team = ALONE,
) -> Tensor:
    """The aggregate [d] of the rows of a matrix [n, d], where each member of a team has some of the columns."""
    if isinstance(aggregator, Sum):
        p = torch.tensor(weights, dtype=matrix.dtype, device=matrix.device)
        return p @ matrix / p.sum()
    if isinstance(aggregator, Coordinatewise):
        return torch.cat([aggregator.rule(block) for block in torch.split(matrix, BLOCK, dim=1)])
    if isinstance(aggregator, Geometric):
        return aggregator.coefficients(team.sum(gram(matrix))).to(matrix.dtype) @ matrix
    products, inner = team.sum(gram(matrix)), aggregator.inner
    mixing = mixed(aggregator.mixings, products, key)
    if isinstance(inner, Geometric):
        return (inner.coefficients(mixing @ products @ mixing.T) @ mixing).to(matrix.dtype) @ matrix
    return reduced(inner, mixing.to(matrix.dtype) @ matrix, [1.0] * len(mixing))


def fits(aggregator: Aggregator, n: int) -> None:
    """Try the aggregator on n updates of one number each, so that a rule that needs more fails before a run begins.

    Raises:
        Mistake: it needs more.
    """
    rule = aggregator.inner if isinstance(aggregator, Composite) else aggregator
    if not isinstance(rule, Sum):
        reduced(rule, torch.zeros(n, 1), [1.0] * n)


def mixed(mixings: Sequence[Mixing], gram: Tensor, key: Tensor | None = None) -> Tensor:
    """A chain of mixings as one matrix, float64 [m, n]."""
    whole = torch.eye(len(gram), dtype=torch.float64, device=gram.device)
    key = rng.key("mixing") if key is None else key
    for k, mixing in enumerate(mixings):
        step = mixing.matrix(whole @ gram @ whole.T, rng.fold(key, k))
        whole = step @ whole
    return whole


BLOCK = 2**20
"""Coordinates that are treated at a time, which bounds what a rule takes beside the updates themselves."""


def gram(matrix: Tensor) -> Tensor:
    """The inner products of the rows of [n, d], float64 [n, n].

    Distances follow from them by a difference, in which the digits of float32 cancel where updates are much alike.
    """
    n = len(matrix)
    products = (block.double() @ block.double().T for block in torch.split(matrix, BLOCK, dim=1))
    return sum(products, torch.zeros(n, n, dtype=torch.float64, device=matrix.device))


def _vector(update: Tree, like: Tree) -> Tensor:
    """The leaves of an update in the order of `like` [d]; a message may come with its leaves in another."""
    return torch.cat([leaf.reshape(-1) for leaf in tree.leaves(tree.map(lambda _, leaf: leaf, like, update))])


def _tree(vector: Tensor, like: Tree) -> Tree:
    """Leaves of the shapes and types of `like`, each a copy: views into one shared vector would tie the leaves'
    futures together.
    """
    pieces = iter(torch.split(vector, [leaf.numel() for leaf in tree.leaves(like)]))
    return tree.map(lambda leaf: next(pieces).reshape(leaf.shape).to(leaf.dtype, copy=True), like)
