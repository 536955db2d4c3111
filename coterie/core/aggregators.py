"""Aggregators: how the updates of a round become one. A kind is a type that reduces itself.

A kind says what it has to see. `Sum` takes one update after another and needs the memory of one; every other kind
needs all updates of the round. Each kind reduces updates itself, so nothing outside this module asks which kind it has.

Legend: n updates of a round, d numbers in a part of the update, m vectors that a mixing leaves.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import ClassVar, NamedTuple, Protocol, TypeAlias

import torch
from torch import Tensor

from coterie.core import rng, tree
from coterie.core.errors import Mistake
from coterie.core.tree import Tree

Combine: TypeAlias = Callable[[Sequence[Tree]], Tree]
"""Reduces one tree per client to one tree."""

AllReduce: TypeAlias = Callable[[Tensor], Tensor]
"""Sums a tensor over the processes of a run, each of which holds some of the columns of the updates."""


def sum_alone(x: Tensor) -> Tensor:
    """Return x, which is the sum over the processes if there is one process."""
    return x


class Accumulator(Protocol):
    """Takes the updates of a round one after another, then gives their aggregate."""

    def add(self, update: Tree, weight: float, place: int = 0) -> None:
        """Take one update [d], its weight > 0, and its client's place in the cohort."""

    def result(self) -> Tree:
        """Return the aggregate [d] of what was added, which is one update at least."""


class Aggregator(ABC):
    """How the updates of a round become one.

    Attributes:
        needs_whole_updates: whether the rule looks at several parts of an update at once, so that no process can reduce
            some of the columns alone.
    """

    needs_whole_updates: ClassVar[bool] = False

    def accumulator(self, key: Tensor | None = None) -> Accumulator:
        """Return an empty accumulator for one part of one round's updates, with a key (int64 []) for random rules."""
        return AllUpdates(self, key)

    @abstractmethod
    def reduce(
        self,
        updates: Tensor,
        weights: Sequence[float],
        key: Tensor | None = None,
        all_reduce: AllReduce = sum_alone,
    ) -> Tensor:
        """Reduce the rows of a matrix [n, d] to one row [d].

        Args:
            updates: a row for each client; with several processes, some of its columns.
            weights: of the rows; every rule but the mean ignores them.
            key: int64 [], for what is random in the rule.
            all_reduce: the sum over processes.
        """

    def combine(self, updates: Sequence[Tree], weights: Sequence[float], key: Tensor | None = None) -> Tree:
        """Reduce one tree per client to one tree.

        >>> u = [{"a": torch.tensor([1.0])}, {"a": torch.tensor([4.0])}]
        >>> Sum().combine(u, [2.0, 1.0])
        {'a': tensor([2.])}
        """
        return unflatten_like(self.reduce(flatten_all(updates, updates[0]), weights, key), updates[0])

    def check_count(self, n: int) -> None:
        """Check that the rule can reduce n updates, by trying it on n updates of one number each.

        Raises:
            Mistake: the rule needs more updates.
        """
        self.reduce(torch.zeros(n, 1), [1.0] * n)

    def for_statistics(self) -> Aggregator:
        """Return this rule without the steps that only make sense for differences of weights.

        Raises:
            Mistake: the rule works in stages itself, so it cannot be one stage of another.
        """
        return self


@dataclass(frozen=True)
class Sum(Aggregator):
    """The weighted mean, sum_i p_i U_i / sum_i p_i. It is associative, so updates can be added up in any process."""

    def accumulator(self, key: Tensor | None = None) -> Accumulator:
        """Return an empty running mean, which needs the memory of one update; see `Aggregator.accumulator`."""
        return RunningMean()

    def reduce(
        self, updates: Tensor, weights: Sequence[float], key: Tensor | None = None, all_reduce: AllReduce = sum_alone
    ) -> Tensor:
        """Return the weighted mean of the rows; see `Aggregator.reduce`."""
        p = torch.tensor(weights, dtype=updates.dtype, device=updates.device)
        return p @ updates / p.sum()

    def combine(self, updates: Sequence[Tree], weights: Sequence[float], key: Tensor | None = None) -> Tree:
        """Return the weighted mean of the trees, added one after another like a stream; see `Aggregator.combine`."""
        running = RunningMean()
        for update, weight in zip(updates, weights, strict=True):
            running.add(update, weight)
        return running.result()

    def check_count(self, n: int) -> None:
        """Accept any number of updates."""


class RunningMean:
    """The weighted mean of the updates so far, in the memory of one.

    Attributes:
        total: sum_i p_i U_i; None before the first update.
        weight: sum_i p_i.
    """

    def __init__(self) -> None:
        self.total: Tree | None = None
        self.weight = 0.0

    def add(self, update: Tree, weight: float, place: int = 0) -> None:
        """Add one update times its weight, in the order of the calls; see `Accumulator.add`."""
        if self.total is None:
            self.total = tree.map(lambda u: u * weight, update)
        else:
            tree.map(lambda t, u: t.add_(u, alpha=weight), self.total, update)
        self.weight += weight

    def result(self) -> Tree:
        """Return the weighted mean of what was added; see `Accumulator.result`."""
        assert self.total is not None, "there is an update at least"
        return tree.map(lambda t: t / self.weight, self.total)


class AllUpdates:
    """All updates of a round, for a rule that must see them together.

    They are kept as rows of blocks. A block is let go when its rows are copied into the matrix that the rule sees, so
    memory never holds all updates twice.

    Attributes:
        like: the form of the updates, with leaves without content; None before the first.
        weights: of the updates, in the order of the calls.
        places: of their clients in the cohort, in the same order.
    """

    def __init__(self, aggregator: Aggregator, key: Tensor | None) -> None:
        self.aggregator, self.key = aggregator, key
        self.like: Tree | None = None
        self.weights: list[float] = []
        self.places: list[int] = []
        self._blocks: list[Tensor] = []

    def add(self, update: Tree, weight: float, place: int = 0) -> None:
        """Keep one update, its weight and its place; see `Accumulator.add`."""
        if self.like is None:
            self.like = tree.map(lambda leaf: leaf.to("meta"), update)
        vector = flatten_like(update, self.like)
        row = len(self.places) % (height := block_rows(len(vector)))
        if row == 0:
            self._blocks.append(vector.new_empty(height, len(vector)))
        self._blocks[-1][row] = vector
        self.weights.append(weight)
        self.places.append(place)

    def result(self) -> Tree:
        """Apply the rule to all updates, in the order of the cohort, and keep none; see `Accumulator.result`."""
        assert self.like is not None, "there is an update at least"
        order = sorted(range(len(self.places)), key=self.places.__getitem__)
        rows, weights = self.give_rows(order), [self.weights[k] for k in order]
        if self.aggregator.needs_whole_updates:
            return self.aggregator.combine([unflatten_like(row, self.like) for row in rows], weights, self.key)
        return unflatten_like(self.aggregator.reduce(rows, weights, self.key), self.like)

    def give_rows(self, order: Sequence[int]) -> Tensor:
        """Return the updates as rows [n, d], and keep none. Row i is what the call of number `order[i]` added."""
        (height, width), n = self._blocks[0].shape, len(order)
        rows, at = self._blocks[0].new_empty(n, width), torch.tensor(order).argsort().to(self._blocks[0].device)
        for start in range(0, n, height):
            rows[at[start : start + height]] = self._blocks.pop(0)[: n - start]
        return rows

    @property
    def device(self) -> str:
        """The type of device of the updates, of which there is one at least."""
        return self._blocks[0].device.type


@dataclass(frozen=True)
class Coordinatewise(Aggregator):
    """A rule that treats every coordinate alike and apart: `rule` maps [n, d] to [d]. Weights are ignored."""

    rule: Callable[[Tensor], Tensor]

    def reduce(
        self, updates: Tensor, weights: Sequence[float], key: Tensor | None = None, all_reduce: AllReduce = sum_alone
    ) -> Tensor:
        """Apply the rule to the rows, some columns at a time; see `Aggregator.reduce`."""
        return torch.cat([self.rule(block) for block in torch.split(updates, block_columns(len(updates)), dim=1)])


@dataclass(frozen=True)
class Geometric(Aggregator):
    """A linear combination of the updates whose coefficients depend on their inner products alone.

    `coefficients` maps the Gram matrix, float64 [n, n], to [n]. Weights are ignored.
    """

    coefficients: Callable[[Tensor], Tensor]

    def reduce(
        self, updates: Tensor, weights: Sequence[float], key: Tensor | None = None, all_reduce: AllReduce = sum_alone
    ) -> Tensor:
        """Combine the rows by coefficients from their inner products; see `Aggregator.reduce`."""
        return self.coefficients(all_reduce(gram(updates))).to(updates.dtype) @ updates

    def reduce_mixed(self, matrix: Tensor, products: Tensor, updates: Tensor) -> Tensor:
        """Reduce updates [n, d] after a mixing by `matrix` [m, n]; `products` [n, n] are those before the mixing."""
        return (self.coefficients(matrix @ products @ matrix.T) @ matrix).to(updates.dtype) @ updates


@dataclass(frozen=True)
class Mixing:
    """A step before a rule, which then sees linear combinations of the round's updates instead of the updates.

    Attributes:
        matrix: (Gram matrix, float64 [n, n], key []) -> float64 [m, n], one row for each vector that the rule sees. The
            key is for random steps.
        of_differences: whether the step takes zero for a harmless update, as clipping at a given norm does. Such a step
            makes sense for differences of weights alone.
    """

    matrix: Callable[[Tensor, Tensor], Tensor]
    of_differences: bool = False


@dataclass(frozen=True)
class Mixed(Aggregator):
    """A rule after one or more mixings, first to last. Weights are ignored.

    A chain of mixings is one matrix [m, n], and choosing it takes the Gram matrix alone. The rule then treats
    coordinates as it always does.
    """

    mixings: tuple[Mixing, ...]
    inner: Aggregator

    def reduce(
        self, updates: Tensor, weights: Sequence[float], key: Tensor | None = None, all_reduce: AllReduce = sum_alone
    ) -> Tensor:
        """Mix the rows, then apply the inner rule; see `Aggregator.reduce`."""
        products = all_reduce(gram(updates))
        matrix = mixing_matrix(self.mixings, products, key)
        if isinstance(self.inner, Geometric):  # spares the mixed updates, and a second exchange of their products
            return self.inner.reduce_mixed(matrix, products, updates)
        return self.inner.reduce(matrix.to(updates.dtype) @ updates, [1.0] * len(matrix))

    def for_statistics(self) -> Aggregator:
        """Return this rule without mixings of differences; see `Aggregator.for_statistics`."""
        mixings = tuple(mixing for mixing in self.mixings if not mixing.of_differences)
        return Mixed(mixings, self.inner) if mixings else self.inner


class OneMean(NamedTuple):
    """A rule in stages as one weighted mean, for a sum of which nobody sees the terms.

    after(mean of before(U_i, p_i), sum of p_i) is what the rule gives for the U_i with the weights p_i, up to rounding.
    """

    before: Callable[[Tree, float], Tree]
    after: Callable[[Tree, float], Tree]


@dataclass(frozen=True)
class Composite(Aggregator):
    """A rule in stages over a part of the update that has parts itself, each stage done by the aggregator `inner`.

    `rule(updates, combine)` gets the round's subtrees and `combine`, which reduces one tree per client to one tree. If
    `inner` is the mean, `one_mean` is the same rule as one mean, where there is such a form.
    """

    needs_whole_updates: ClassVar[bool] = True

    rule: Callable[[list[Tree], Combine], Tree]
    inner: Aggregator
    one_mean: OneMean | None = None

    def reduce(
        self, updates: Tensor, weights: Sequence[float], key: Tensor | None = None, all_reduce: AllReduce = sum_alone
    ) -> Tensor:
        """Reduce the rows by the inner aggregator, as one stage does."""
        return self.inner.reduce(updates, weights, key, all_reduce)

    def combine(self, updates: Sequence[Tree], weights: Sequence[float], key: Tensor | None = None) -> Tree:
        """Apply the rule, whose stages combine trees with the inner aggregator; see `Aggregator.combine`."""
        return self.rule(list(updates), lambda parts: self.inner.combine(parts, weights, key))

    def check_count(self, n: int) -> None:
        """Try the inner aggregator on n updates; see `Aggregator.check_count`."""
        self.inner.check_count(n)

    def for_statistics(self) -> Aggregator:
        """Raise a mistake: a rule in stages cannot be a stage."""
        raise Mistake("the statistics of BatchNorm layers need an aggregator that does not work in stages itself")


def mixing_matrix(mixings: Sequence[Mixing], gram: Tensor, key: Tensor | None = None) -> Tensor:
    """Return a chain of mixings as one matrix, float64 [m, n]."""
    whole = torch.eye(len(gram), dtype=torch.float64, device=gram.device)
    key = rng.key("mixing") if key is None else key
    for k, mixing in enumerate(mixings):
        step = mixing.matrix(whole @ gram @ whole.T, rng.fold(key, k))
        whole = step @ whole
    return whole


BLOCK_COORDINATES = 2**20
"""Coordinates that are treated at a time. It bounds the memory that a rule takes beside the updates."""

BLOCK_NUMBERS = 2**24
"""Numbers that a rule of coordinates treats at a time, those of all updates together; and numbers kept in one block."""

BLOCK_ROWS = 256
"""Updates that are kept in one block, at most."""

ALIGNED = 4096
"""Blocks are multiples of so many columns, so that where they end changes no order of sums."""


def block_columns(n: int) -> int:
    """Return how many columns of n updates are treated at a time.

    >>> block_columns(10), block_columns(1000), block_columns(1_000_000)
    (1048576, 16384, 4096)
    """
    return min(BLOCK_COORDINATES, max(ALIGNED, BLOCK_NUMBERS // max(n, 1) // ALIGNED * ALIGNED))


def block_rows(d: int) -> int:
    """Return how many updates of d numbers are kept in one block.

    >>> block_rows(10), block_rows(200_000), block_rows(100_000_000)
    (256, 83, 1)
    """
    return max(1, min(BLOCK_ROWS, BLOCK_NUMBERS // max(d, 1)))


def gram(matrix: Tensor) -> Tensor:
    """Return the inner products of the rows of [n, d], float64 [n, n].

    Distances are differences of these products. In float32 their digits would cancel where updates are much alike.
    """
    n = len(matrix)
    blocks = (block.double() for block in torch.split(matrix, BLOCK_COORDINATES, dim=1))
    products = (block @ block.T for block in blocks)
    return sum(products, torch.zeros(n, n, dtype=torch.float64, device=matrix.device))


def flatten_like(update: Tree, like: Tree) -> Tensor:
    """Return the leaves of an update as one vector [d], in the order of `like`; their own order may differ."""
    return torch.cat([leaf.reshape(-1) for leaf in tree.leaves(tree.map(lambda _, leaf: leaf, like, update))])


def flatten_all(updates: Sequence[Tree], like: Tree) -> Tensor:
    """Return one update or more as the rows of a matrix [n, d]; see `flatten_like`."""
    first = flatten_like(updates[0], like)
    rows = first.new_empty(len(updates), len(first))  # filled in place: a list of rows would be one more copy of all
    rows[0] = first
    for k in range(1, len(updates)):
        rows[k] = flatten_like(updates[k], like)
    return rows


def unflatten_like(vector: Tensor, like: Tree) -> Tree:
    """Return a tree with the shapes and types of `like` from a vector [d]. Each leaf is a copy.

    Views into one vector would let a write into one leaf change its neighbours.
    """
    pieces = iter(torch.split(vector, [leaf.numel() for leaf in tree.leaves(like)]))
    return tree.map(lambda leaf: next(pieces).reshape(leaf.shape).to(leaf.dtype, copy=True), like)
