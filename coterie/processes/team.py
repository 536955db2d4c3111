"""The processes that run one federation together, and what they tell one another.

Every member of a team runs the same program on the same plan: all know the server's state, each does its share of a
round's work, and each owns some of the clients, whose state it keeps from round to round. A team of one, `ALONE`, is
what a single process is; nothing here then costs or changes anything.

What is called "collective" below must be called by every member, in the same order.

Legend: n clients, d numbers.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Protocol, TypeVar

import torch
from torch import Tensor

from coterie.core import rng, tree
from coterie.core.packing import pack, unpack
from coterie.core.tree import Tree

T = TypeVar("T")


class Lost(RuntimeError):
    """A member of the team is gone, so that the others cannot go on."""


class Team(Protocol):
    """How members reach one another. All three verbs are collective.

    Raises:
        Lost: another member is gone.
    """

    @property
    def rank(self) -> int:
        """This member's number, from 0. Member 0 writes what only one should write."""

    @property
    def size(self) -> int:
        """How many members there are."""

    def gather(self, value: T) -> list[T]:
        """Every member's value, by rank. For small values: they are pickled."""

    def sum(self, x: Tensor) -> Tensor:
        """The sum of every member's x, whose shape and type are the same on all; the same bits on each."""

    def exchange(self, parcels: Sequence[Tensor]) -> list[Tensor]:
        """What the members sent to this one, by rank, where `parcels[r]` [any length] is for member r. All have one
        type.
        """


@dataclass(frozen=True)
class Alone:
    """A team of one."""

    rank: int = 0
    size: int = 1

    def gather(self, value: T) -> list[T]:
        """See `Team`."""
        return [value]

    def sum(self, x: Tensor) -> Tensor:
        """See `Team`."""
        return x

    def exchange(self, parcels: Sequence[Tensor]) -> list[Tensor]:
        """See `Team`."""
        return list(parcels)


ALONE = Alone()


def owner(team: Team, client: str) -> int:
    """The member that keeps this client's state: a function of the client and of the team's size alone."""
    return rng.number(client, "owner") % team.size if team.size > 1 else 0


def owns(team: Team, client: str) -> bool:
    """Whether this member keeps the client's state."""
    return owner(team, client) == team.rank


def shares(costs: Mapping[str, float], team: Team) -> dict[str, int]:
    """client -> the member that does its work in a round: its owner, but for as many as it takes to even out the costs.

    No move is left that would lower the larger of two members' costs.

    >>> shares({"a": 3.0, "b": 1.0}, ALONE)
    {'a': 0, 'b': 0}
    """
    at = {client: owner(team, client) for client in costs}
    load = [sum(cost for client, cost in costs.items() if at[client] == r) for r in range(team.size)]
    while True:
        most, least = load.index(max(load)), load.index(min(load))
        gap = load[most] - load[least]
        movable = [client for client in costs if at[client] == most and 0 < costs[client] < gap]
        if not movable:
            return at
        client = min(movable, key=lambda c: abs(2 * costs[c] - gap))
        at[client] = least
        load[most], load[least] = load[most] - costs[client], load[least] + costs[client]


def all_to_all(team: Team, parcels: Sequence[Tree]) -> Tree:
    """The branches that the members sent to this one, in one tree, where `parcels[r]` is for member r. Collective.

    What comes from another member is on the host.
    """
    if team.size == 1:
        return parcels[0]
    packed = [pack(parcel) if parcel else b"" for parcel in parcels]
    got = team.exchange([torch.frombuffer(bytearray(p), dtype=torch.uint8) if p else _NOTHING for p in packed])
    trees = [unpack(bytes(g.numpy())) for g in got if len(g)]
    return {name: branch for t in trees for name, branch in t.items()}


_NOTHING = torch.empty(0, dtype=torch.uint8)


def broadcast_from(team: Team, message: Tree, by: int) -> Tree:
    """The message of member `by`, on the devices of one's own `message`, which is of the same structure. Collective."""
    if team.size == 1:
        return message
    theirs = all_to_all(team, [message if team.rank == by else {}] * team.size)
    return tree.map(lambda ours, x: x.to(ours.device), message, theirs)


def sum_trees(team: Team, part: Tree | None, weight: float) -> tuple[Tree, float]:
    """The sum of the members' trees and of the weights in them; those with None add nothing. One reduction for each
    type of number. Collective.
    """
    if team.size == 1:
        assert part is not None, "nobody has anything to add"
        return part, weight
    like, device, weights = agree_on_shapes(team, part, weight)
    part = tree.map(lambda x: torch.zeros_like(x, device=device), like) if part is None else part
    vectors: dict[torch.dtype, list[Tensor]] = {}
    for leaf in tree.leaves(tree.map(lambda _, leaf: leaf, like, part)):
        vectors.setdefault(leaf.dtype, []).append(leaf.reshape(-1))
    sums = {dtype: team.sum(torch.cat(leaves)) for dtype, leaves in vectors.items()}
    pieces = {dtype: iter(torch.split(sums[dtype], [len(v) for v in vectors[dtype]])) for dtype in sums}
    return tree.map(lambda leaf: next(pieces[leaf.dtype]).reshape(leaf.shape), like), sum(weights)


def agree_on_shapes(team: Team, mine: Tree | None, note: T) -> tuple[Tree, str, list[T]]:
    """A tree that one member has at least, as tensors without content, and the device of its leaves; and every member's
    note, by rank, which travels with it. Collective.
    """
    shown = None if mine is None else (tree.map(lambda x: x.to("meta"), mine), _device(mine))
    everyones = team.gather((shown, note))
    like, device = next(known for known, _ in everyones if known is not None)
    return like, device, [theirs for _, theirs in everyones]


def _device(t: Tree) -> str:
    return next((leaf.device.type for leaf in tree.leaves(t)), "cpu")


def gather_rows(team: Team, mine: Tensor, places: Sequence[Sequence[int]], whole: bool) -> Tensor:
    """The rows of all members' matrices [n_r, d] in the order of their `places[r]` [n_r]: with all columns [n, d], or
    with this member's share of them [n, d / size]. Collective.
    """
    parcels = [mine] * team.size if whole else torch.tensor_split(mine, team.size, dim=1)
    width = parcels[team.rank].shape[1]
    got = team.exchange([parcel.reshape(-1) for parcel in parcels])
    found = torch.cat([g.reshape(len(theirs), width) for g, theirs in zip(got, places, strict=True)])
    return found[torch.tensor([place for theirs in places for place in theirs]).argsort().to(found.device)]


def gather_columns(team: Team, mine: Tensor) -> Tensor:
    """The members' vectors, one behind the other, on each of them. Collective."""
    return torch.cat(team.exchange([mine] * team.size))
