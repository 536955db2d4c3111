"""The processes that run one federation together, and what they exchange.

All processes of a team run the same program on the same plan. All know the server's state, each does its share of a
round's work, and each owns some of the clients, whose state it keeps from round to round. A single process is the team
`ALONE`; for it, nothing here costs or changes anything.

Legend: n clients, d numbers, n_r rows of the process of rank r.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Protocol, TypeAlias, TypeVar

import torch
from torch import Tensor

from coterie.core import rng, tree
from coterie.core.aggregators import block_columns
from coterie.core.packing import pack, unpack
from coterie.core.tree import Tree

T = TypeVar("T")


class Team(Protocol):
    """The processes of a run, as one of them sees them. Its methods are collective.

    Raises:
        Lost: another process has ended.
    """

    @property
    def rank(self) -> int:
        """This process's number, from 0. Process 0 writes what only one should write."""

    @property
    def size(self) -> int:
        """How many processes there are."""

    def gather(self, value: T) -> list[T]:
        """Return every process's value, by rank. Values are pickled, so they should be small.

        Collective: every process calls it.
        """

    def sum(self, x: Tensor) -> Tensor:
        """Return the sum of every process's x, the same bits in each. All have one shape and type.

        Collective: every process calls it.
        """

    def exchange(self, parcels: Sequence[Tensor]) -> list[Tensor]:
        """Send `parcels[r]` [any length] to process r; return what the processes sent to this one, by rank.

        All parcels have one type. Collective: every process calls it.
        """

    def second_channel(self) -> Team:
        """Return the same processes over connections of their own, for the calls of another thread.

        Collective: every process calls it.
        """


@dataclass(frozen=True)
class Alone:
    """A team of one process."""

    rank: int = 0
    size: int = 1

    def gather(self, value: T) -> list[T]:
        """Return [value]; see `Team.gather`."""
        return [value]

    def sum(self, x: Tensor) -> Tensor:
        """Return x; see `Team.sum`."""
        return x

    def exchange(self, parcels: Sequence[Tensor]) -> list[Tensor]:
        """Return the parcels unchanged; see `Team.exchange`."""
        return list(parcels)

    def second_channel(self) -> Team:
        """Return this team; see `Team.second_channel`."""
        return self


ALONE = Alone()


def owner(team: Team, client: str) -> int:
    """Return the rank of the process that keeps this client's state.

    It depends on the client and on the number of processes alone.
    """
    return rng.number(client, "owner") % team.size if team.size > 1 else 0


def owns(team: Team, client: str) -> bool:
    """Return whether this process keeps the client's state."""
    return owner(team, client) == team.rank


def share_work(costs: Mapping[str, float], team: Team) -> dict[str, int]:
    """Return client -> the rank that does its work: its owner's, unless it must move so that costs are even.

    It is the client's owner, except for the clients that must move so that the costs are even. At the end, no move
    would lower the larger of two processes' costs.

    >>> share_work({"a": 3.0, "b": 1.0}, ALONE)
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
    """Send `parcels[r]` to process r; return the branches that the processes sent to this one, in one tree.

    Tensors from other processes are on the host. Collective: every process calls it.
    """
    if team.size == 1:
        return parcels[0]
    packed = [pack(parcel) if parcel else b"" for parcel in parcels]
    received = team.exchange([torch.frombuffer(bytearray(p), dtype=torch.uint8) if p else _EMPTY for p in packed])
    trees = [unpack(bytes(data.numpy())) for data in received if len(data)]
    return {name: branch for t in trees for name, branch in t.items()}


_EMPTY = torch.empty(0, dtype=torch.uint8)


def broadcast_from(team: Team, message: Tree, by: int) -> Tree:
    """Return the message of process `by`, on the devices of this process's own `message` of the same structure.

    Collective: every process calls it.
    """
    if team.size == 1:
        return message
    received = all_to_all(team, [message if team.rank == by else {}] * team.size)
    return tree.map(lambda own, x: x.to(own.device), message, received)


def sum_trees(team: Team, part: Tree | None, weight: float) -> tuple[Tree, float]:
    """Return the sum of the processes' trees, and of their weights. A process with None adds nothing.

    There is one reduction for each type of number. Collective: every process calls it.
    """
    if team.size == 1:
        assert part is not None, "one process has a tree at least"
        return part, weight
    by_rank = team.gather((form_of(part), weight))
    like, device = find_form([form for form, _ in by_rank])
    return sum_parts(team, part, like, device), sum(weight for _, weight in by_rank)


def sum_parts(team: Team, part: Tree | None, like: Tree, device: str) -> Tree:
    """Return the sum of the processes' trees, whose form all know. Collective: every process calls it.

    Args:
        team: the processes.
        part: this process's tree, or None, which adds nothing.
        like: the tree with tensors without content. device: of the leaves.
    """
    part = tree.map(lambda x: torch.zeros_like(x, device=device), like) if part is None else part
    vectors: dict[torch.dtype, list[Tensor]] = {}
    for leaf in tree.leaves(tree.map(lambda _, leaf: leaf, like, part)):
        vectors.setdefault(leaf.dtype, []).append(leaf.reshape(-1))
    sums = {dtype: team.sum(torch.cat(leaves)) for dtype, leaves in vectors.items()}
    pieces = {dtype: iter(torch.split(sums[dtype], [len(v) for v in vectors[dtype]])) for dtype in sums}
    return tree.map(lambda leaf: next(pieces[leaf.dtype]).reshape(leaf.shape), like)


Form: TypeAlias = tuple[Tree, str] | None
"""A tree with tensors without content (on the device "meta"), and the device of its leaves; None of no tree."""


def form_of(own: Tree | None) -> Form:
    """Return the form of a tree, for other processes."""
    return None if own is None else (tree.map(lambda x: x.to("meta"), own), _device(own))


def find_form(forms: Sequence[Form]) -> tuple[Tree, str]:
    """Return the form of the trees of all processes, one of which has one at least."""
    return next(form for form in forms if form is not None)


def _device(t: Tree) -> str:
    """Return the type of device of a tree's leaves."""
    return next((leaf.device.type for leaf in tree.leaves(t)), "cpu")


def gather_rows(team: Team, own: Tensor, places: Sequence[Sequence[int]], whole: bool) -> Tensor:
    """Return all processes' rows [n_r, d] in the order of `places`: whole, or only this process's share of the columns.

    They have all columns [n, d] if `whole`, else this process's share of the columns [n, d / size]. Some columns travel
    at a time, so that little lies in memory twice. Collective: every process calls it.
    """
    shares = [own] * team.size if whole else torch.tensor_split(own, team.size, dim=1)
    order = torch.tensor([place for at in places for place in at]).argsort().argsort()  # which row each becomes
    at_ranks = [at.to(own.device) for at in torch.split(order, [len(each) for each in places])]
    rows = own.new_empty(len(order), shares[team.rank].shape[1])
    columns = block_columns(len(order))
    for start in range(0, max(share.shape[1] for share in shares), columns):
        received = team.exchange([share[:, start : start + columns].reshape(-1) for share in shares])
        width = rows[:, start : start + columns].shape[1]  # 0 where other processes have a column more
        for at, part in zip(at_ranks, received, strict=True):
            rows[at, start : start + width] = part.reshape(len(at), width)
    return rows


def gather_columns(team: Team, own: Tensor) -> Tensor:
    """Return the processes' vectors, one after another, in each process. Collective: every process calls it."""
    return torch.cat(team.exchange([own] * team.size))
