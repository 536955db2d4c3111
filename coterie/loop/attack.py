"""Clients that do harm: which clients, which parts of their updates, and what they send instead.

The attackers are drawn once per run. They take part like all clients, and their updates are replaced before these are
aggregated. They work together and know everything: the honest updates of the round and the server's rule. This is the
strongest adversary of the literature; real ones know less.

Legend: h honest and f attacking clients of a round, n = h + f, d numbers in a part of the update.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from itertools import islice
from typing import Literal, NamedTuple, TypeAlias

import torch
from torch import Tensor

from coterie.core import rng, tree
from coterie.core.aggregators import Aggregator
from coterie.core.algorithm import Weighting
from coterie.core.engine import Reply
from coterie.core.errors import Mistake, require
from coterie.core.examples import Examples
from coterie.core.tree import Tree

Part: TypeAlias = Literal["update", "parameters", "statistics"]
"""What is attacked: the whole update, all of it except statistics of normalisation layers, or only these."""


class Sight(NamedTuple):
    """What the attackers see for one part of a round's updates."""

    honest: Tensor  # [h, d]
    own: Tensor  # [f, d], the attackers' own updates
    outcome: Callable[[Tensor], Tensor]  # forgeries [f, d] -> the server's aggregate [d]
    key: Tensor  # [] int64


Forge: TypeAlias = Callable[[Sight], Tensor]
"""What the attackers see -> their forgeries, [f, d]."""

Poison: TypeAlias = Callable[[Examples, int | None], Examples]
"""(examples, number of classes or None) -> the examples that an attacker trains on."""


@dataclass(frozen=True)
class Attack:
    """An attack by some of the clients.

    Attributes:
        num_clients: how many of all clients attack.
        forge: makes what they send instead of their updates, part by part. None: they send their updates.
        poison: makes what they train on instead of their examples. None: they train on their own.
        on: the parts that they forge.

    Raises:
        Mistake: `num_clients` is below 1, or `on` names no part.
    """

    num_clients: int
    forge: Forge | None = None
    poison: Poison | None = None
    on: Part = "update"

    def __post_init__(self) -> None:
        require("num_clients", self.num_clients, self.num_clients >= 1, "1 or more")
        parts = ("update", "parameters", "statistics")
        require("on", self.on, self.on in parts, '"update", "parameters" or "statistics"')

    def attackers(self, ids: Sequence[str], rng_seed: int) -> frozenset[str]:
        """Draw the clients that attack, the same in every round.

        Raises:
            Mistake: no client would be honest.
        """
        if self.num_clients >= len(ids):
            sentence = f"there are {len(ids)} clients, and one must stay honest"
            raise Mistake(sentence, key="num_clients", value=self.num_clients)
        order = rng.shuffle(len(ids), rng.python_generator(rng_seed, "attackers"))
        return frozenset(ids[i] for i in islice(order, self.num_clients))

    def forge_updates(
        self,
        replies: Sequence[Reply],
        attackers: frozenset[str],
        aggregators: Mapping[str, Aggregator],
        weighting: Mapping[str, Weighting],
        key: Tensor,
    ) -> list[Reply]:
        """Return a round's replies in the same order, with each attacker's update replaced by its forgery.

        A round that reached only attackers, or none, stays unchanged.

        Raises:
            Mistake: the algorithm's updates have no such part.
        """
        attacks = torch.tensor([reply.client in attackers for reply in replies], dtype=torch.bool)  # [n]
        if self.forge is None or not attacks.any() or attacks.all():
            return list(replies)
        leaves = [dict(tree.items(reply.update)) for reply in replies]
        for number, paths in enumerate(self._parts(leaves[0])):
            top = paths[0][0]
            p = [reply.weighting[weighting[top]] for reply in replies]
            matrix = torch.stack([torch.cat([flat[path].reshape(-1) for path in paths]) for flat in leaves])
            sight = _sight(matrix, attacks, aggregators[top], p, rng.fold(key, number))
            matrix[attacks] = torch.nan_to_num(
                self.forge(sight).to(matrix.dtype)
            )  # the server refuses what is not finite
            for flat, row in zip(leaves, matrix, strict=True):
                _write_leaves(flat, paths, row)
        return [
            reply._replace(update=_rebuild(reply.update, flat)) if reply.client in attackers else reply
            for reply, flat in zip(replies, leaves, strict=True)
        ]

    def _parts(self, leaves: Mapping[Path, Tensor]) -> list[list[Path]]:
        """Return the paths of the attacked leaves, in one list for each vector that is forged by itself."""
        parts: dict[Path, list[Path]] = {}
        for path, leaf in leaves.items():
            part, is_statistics = _part_of(path)
            if leaf.is_floating_point() and self.on in ("update", "statistics" if is_statistics else "parameters"):
                parts.setdefault(part, []).append(path)
        if not parts:
            raise Mistake("the updates of this algorithm have no such part", key="on", value=self.on)
        return list(parts.values())


Path: TypeAlias = tuple[str, ...]


def _part_of(path: Path) -> tuple[Path, bool]:
    """Return the vector that a leaf belongs to, and whether it holds statistics.

    All means are one vector, and all variances another.
    """
    if path[0] == "statistics":
        return path[:2], True
    if "buffers" in path:  # running statistics, which are averaged themselves
        return (path[0], "buffers", path[-1].rpartition(".")[2]), True
    return path[:1], False


def _sight(matrix: Tensor, attacks: Tensor, aggregator: Aggregator, weights: Iterable[float], key: Tensor) -> Sight:
    """Return what the attackers see of one part of the updates, whose rows are in `matrix` [n, d]."""

    def outcome(forgeries: Tensor) -> Tensor:
        received = matrix.clone()
        received[attacks] = forgeries.to(matrix.dtype)
        return aggregator.reduce(received, list(weights), key)

    return Sight(matrix[~attacks], matrix[attacks], outcome, key)


def _write_leaves(flat: dict[Path, Tensor], paths: Sequence[Path], row: Tensor) -> None:
    """Write a vector [d] back into the leaves at these paths."""
    pieces = torch.split(row, [flat[path].numel() for path in paths])
    for path, piece in zip(paths, pieces, strict=True):
        flat[path] = piece.reshape(flat[path].shape).to(flat[path].dtype, copy=True)


def _rebuild(update: Tree, flat: Mapping[Path, Tensor], path: Path = ()) -> Tree:
    """Return the update with the leaves of `flat`."""
    return {
        name: _rebuild(child, flat, (*path, name)) if isinstance(child, dict) else flat[(*path, name)]
        for name, child in update.items()
    }
