"""What a client adds to a secure sum: its update, its weights and its logs as one row of numbers, and back.

    p_k / P_k * U    each part of the update, times its weight of kind k; P_k is a power of two that no weight exceeds
    p_k / P_k        the weight of every kind
    log / P          every log, P that of the examples which the steps processed

So the opened row holds every weighted mean, the sums of the weights, and those of the logs. Weights and counts are
whole numbers, and P_k a power of two: their sums are exact. Under a guarantee every weight is 1, there are no logs, and
the sums themselves are wanted.

Legend: d numbers in a row.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import NamedTuple, get_args

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from coterie.core import tree
from coterie.core.aggregators import Aggregator, Composite, OneMean, Sum
from coterie.core.algorithm import ServerHalf, Weighting
from coterie.core.engine import Reply
from coterie.core.errors import Mistake
from coterie.core.tree import Tree
from coterie.privacy.fixed_point import FixedPoint, Residues

WEIGHTINGS: tuple[Weighting, ...] = get_args(Weighting)
_PLAIN_SUM = OneMean(lambda part, weight: part, lambda mean, weight: mean)


class OpenedSum(NamedTuple):
    """What a secure sum says.

    Attributes:
        aggregate: of the updates.
        weighting: the sum of each kind of weight.
        logs: the sum of each log.
    """

    aggregate: Tree
    weighting: Mapping[Weighting, float]
    logs: Mapping[str, float]


def as_one_mean(server: ServerHalf, part: str, chosen: Aggregator) -> OneMean:
    """Return how a part of the updates is aggregated, as one weighted mean.

    Raises:
        Mistake: the rule has to see single updates.
    """
    rule = server.aggregator(part, chosen)
    if rule == Sum():
        return _PLAIN_SUM
    if isinstance(rule, Composite) and rule.inner == Sum() and rule.one_mean is not None:
        return rule.one_mean
    raise Mistake(
        f"a secure sum hides single updates, and the rule for the part {part} has to see them; take the mean "
        '([aggregation] name = "mean"), and exchange = "sum" where tables of posteriors are exchanged',
        key="secure_sum",
        value=True,
        table="privacy",
    )


@dataclass(frozen=True)
class SumLayout:
    """The places of a row.

    Attributes:
        server, chosen: how parts are weighted and aggregated.
        template: an update, whose leaves have the right shapes and types.
        largest: kind of weight -> P_k.
        form: of the numbers.
        plain: whether parts are added as they are, and their sums wanted in float64, as under a guarantee.
    """

    server: ServerHalf
    chosen: Aggregator
    template: Tree
    largest: Mapping[Weighting, float]
    form: FixedPoint
    plain: bool = False

    def encode(self, reply: Reply) -> Residues:
        """Return the row [d] of a client whose update is decoded.

        Raises:
            OutOfRange: one of its numbers cannot be summed.
        """
        share = {kind: reply.weighting[kind] / self.largest[kind] for kind in WEIGHTINGS}
        pieces = []
        for part, kind in sorted(self.server.weighting.items()):
            added = self._rule(part).before(reply.update[part], reply.weighting[kind])
            pieces += [leaf.detach().reshape(-1).cpu().double().numpy() * share[kind] for _, leaf in _in_order(added)]
        logs = [float(reply.logs[name]) / self.largest["processed"] for name in sorted(reply.logs)]
        return self.form.encode(np.concatenate([*pieces, [share[kind] for kind in WEIGHTINGS], logs]))

    def length(self, logs: int) -> int:
        """Return d, for so many logs."""
        return sum(leaf.numel() for _, _, leaf in self._leaves()) + len(WEIGHTINGS) + logs

    def _rule(self, part: str) -> OneMean:
        """Return how a part is aggregated."""
        return _PLAIN_SUM if self.plain else as_one_mean(self.server, part, self.chosen)

    def _leaves(self) -> Iterator[tuple[str, tuple[str, ...], Tensor]]:
        """Yield (part, path, leaf) of what is added, in the order of a row."""
        for part in sorted(self.server.weighting):
            added = self._rule(part).before(self.template[part], 1.0)
            yield from ((part, path, leaf) for path, leaf in _in_order(added))

    def decode(self, residues: Residues, logs: Sequence[str], device: torch.device) -> OpenedSum:
        """Return what an opened row [d] says, given the sorted names of the logs."""
        row = self.form.decode(residues)
        tail = row[len(row) - len(WEIGHTINGS) - len(logs) :]
        weighting = {kind: float(tail[k]) * self.largest[kind] for k, kind in enumerate(WEIGHTINGS)}
        totals = {name: float(tail[len(WEIGHTINGS) + k]) * self.largest["processed"] for k, name in enumerate(logs)}
        return OpenedSum(self._aggregate(row, weighting, device), weighting, totals)

    def _aggregate(
        self, row: npt.NDArray[np.float64], weighting: Mapping[Weighting, float], device: torch.device
    ) -> Tree:
        """Return the aggregate of the updates from an opened row [d]."""
        means: dict[str, dict[tuple[str, ...], Tensor]] = {part: {} for part in self.server.weighting}
        at = 0
        for part, path, leaf in self._leaves():
            kind = self.server.weighting[part]
            divisor = 1.0 if self.plain else weighting[kind] / self.largest[kind]
            values = row[at : at + leaf.numel()] / divisor
            means[part][path] = torch.from_numpy(values).reshape(leaf.shape).to(device)
            at += leaf.numel()
        aggregate = {}
        for part, kind in self.server.weighting.items():
            rule = self._rule(part)
            dtype = torch.float64 if self.plain else _float_type(self.template[part])
            mean = _fill(rule.before(self.template[part], 1.0), means[part])
            aggregate[part] = tree.map(lambda x, to=dtype: x.to(to), rule.after(mean, weighting[kind]))
        return aggregate


def _in_order(part: Tree) -> list[tuple[tuple[str, ...], Tensor]]:
    """Return the leaves of a part with their paths, in an order that depends on the paths alone."""
    return sorted(tree.items(part), key=lambda item: item[0])


def _fill(template: Tree, leaves: Mapping[tuple[str, ...], Tensor], path: tuple[str, ...] = ()) -> Tree:
    """Return the leaves, by their paths, in the order and structure of a template, which may be a single leaf."""
    if isinstance(template, Tensor):
        return leaves[path]
    return {name: _fill(child, leaves, (*path, name)) for name, child in template.items()}


def _float_type(part: Tree) -> torch.dtype:
    """Return the type of a part's floats; that of PyTorch's new tensors where it has none, as a mean of integers."""
    return next((x.dtype for x in tree.leaves(part) if x.is_floating_point()), torch.get_default_dtype())


def power_above(largest: float) -> float:
    """Return the smallest power of two that is not below a number, and 1 at least.

    >>> power_above(600), power_above(512)
    (1024.0, 512.0)
    """
    power = 1.0
    while power < largest:
        power *= 2
    return power
