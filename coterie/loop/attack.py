"""Clients that do harm: which ones, to which parts of their updates, and where that enters a round.

The server draws the attackers once per run; they take part as everyone does, and what they send is replaced before it
is aggregated. They work together and know everything: the honest updates of the round and the server's rule. That is
the literature's strongest adversary, and no real one.

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
from coterie.core.errors import Mistake
from coterie.core.examples import Examples
from coterie.core.tree import Tree

Part: TypeAlias = Literal["update", "parameters", "statistics"]
"""What is attacked: everything that is sent, all but the statistics of normalisation layers, or only those."""


class Sight(NamedTuple):
    """What the attackers see of one part of a round's updates."""

    honest: Tensor  # [h, d]
    own: Tensor  # [f, d], what they would have sent
    outcome: Callable[[Tensor], Tensor]  # [f, d] sent by them -> [d], what the server would make of it
    key: Tensor  # [] int64


Forge: TypeAlias = Callable[[Sight], Tensor]
"""What the attackers send, [f, d]."""

Poison: TypeAlias = Callable[[Examples, int | None], Examples]
"""(examples, number of classes or None) -> the examples that an attacker trains on."""


@dataclass(frozen=True)
class Attack:
    """An attack by some of the clients.

    Attributes:
        num_clients: how many of all clients attack.
        forge: what they send instead of their updates, part by part; None: what their training gave.
        poison: what they train on instead of their examples; None: their own.
        on: the parts that they forge.

    Raises:
        Mistake: `num_clients` is below 1, or `on` names no part.
    """

    num_clients: int
    forge: Forge | None = None
    poison: Poison | None = None
    on: Part = "update"

    def __post_init__(self) -> None:
        if self.num_clients < 1:
            raise Mistake(f"attack.num_clients = {self.num_clients}: it must be 1 or more")
        if self.on not in ("update", "parameters", "statistics"):
            raise Mistake(f'attack.on = {self.on}: it must be "update", "parameters" or "statistics"')

    def attackers(self, ids: Sequence[str], rng_seed: int) -> frozenset[str]:
        """The clients that attack, the same in every round.

        Raises:
            Mistake: nobody would be left to be honest.
        """
        if self.num_clients >= len(ids):
            raise Mistake(
                f"attack.num_clients = {self.num_clients}: there are {len(ids)} clients, and one must stay honest"
            )
        order = rng.shuffle(len(ids), rng.python_generator(rng_seed, "attackers"))
        return frozenset(ids[i] for i in islice(order, self.num_clients))

    def forge_updates(
        self,
        replies: Sequence[Reply],
        attackers: frozenset[str],
        aggregators: Mapping[str, Aggregator],
        weights: Mapping[str, Weighting],
        key: Tensor,
    ) -> list[Reply]:
        """Return a round's replies in the same order, with each attacker's update replaced by its forgery.

        A round that reached only attackers, or none, stays unchanged.

        Raises:
            Mistake: the algorithm's updates have no such part.
        """
        evil = torch.tensor([reply.client in attackers for reply in replies], dtype=torch.bool)
        if self.forge is None or not evil.any() or evil.all():
            return list(replies)
        leaves = [dict(tree.items(reply.update)) for reply in replies]
        for number, paths in enumerate(self._parts(leaves[0])):
            top = paths[0][0]
            sent = [reply.weighting[weights[top]] for reply in replies]
            matrix = torch.stack([torch.cat([flat[path].reshape(-1) for path in paths]) for flat in leaves])
            sight = _sight(matrix, evil, aggregators[top], sent, rng.fold(key, number))
            matrix[evil] = torch.nan_to_num(self.forge(sight).to(matrix.dtype))  # the server refuses what is not finite
            for flat, row in zip(leaves, matrix, strict=True):
                _put(flat, paths, row)
        return [
            reply._replace(update=_arranged(reply.update, flat)) if reply.client in attackers else reply
            for reply, flat in zip(replies, leaves, strict=True)
        ]

    def _parts(self, leaves: Mapping[Path, Tensor]) -> list[list[Path]]:
        """The attacked leaves, as one list for each vector that is forged on its own."""
        parts: dict[Path, list[Path]] = {}
        for path, leaf in leaves.items():
            part, is_statistics = _part_of(path)
            if leaf.is_floating_point() and self.on in ("update", "statistics" if is_statistics else "parameters"):
                parts.setdefault(part, []).append(path)
        if not parts:
            raise Mistake(f'attack.on = "{self.on}": the updates of this algorithm have no such part')
        return list(parts.values())


Path: TypeAlias = tuple[str, ...]


def _part_of(path: Path) -> tuple[Path, bool]:
    """The vector that a leaf belongs to, and whether it is of statistics: all means are one, all variances another."""
    if path[0] == "statistics":
        return path[:2], True
    if "buffers" in path:  # running statistics that are averaged as they are
        return (path[0], "buffers", path[-1].rpartition(".")[2]), True
    return path[:1], False


def _sight(matrix: Tensor, evil: Tensor, aggregator: Aggregator, weights: Iterable[float], key: Tensor) -> Sight:
    def outcome(sent: Tensor) -> Tensor:
        received = matrix.clone()
        received[evil] = sent.to(matrix.dtype)
        return aggregator.reduce(received, list(weights), key)

    return Sight(matrix[~evil], matrix[evil], outcome, key)


def _put(flat: dict[Path, Tensor], paths: Sequence[Path], row: Tensor) -> None:
    pieces = torch.split(row, [flat[path].numel() for path in paths])
    for path, piece in zip(paths, pieces, strict=True):
        flat[path] = piece.reshape(flat[path].shape).to(flat[path].dtype, copy=True)


def _arranged(update: Tree, flat: Mapping[Path, Tensor], path: Path = ()) -> Tree:
    return {
        name: _arranged(child, flat, (*path, name)) if isinstance(child, dict) else flat[(*path, name)]
        for name, child in update.items()
    }
