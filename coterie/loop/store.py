"""The states of simulated clients between rounds."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from typing import NamedTuple

from coterie.core.tree import Tree
from coterie.loop.spill import Memory, StoredTree


class Entry(NamedTuple):
    """A client's state, and the round that made it."""

    round: int
    state: StoredTree


class Store:
    """The newest state of each client, and the round that made it.

    A round does not change its store; it makes another one (`after`). So a run that is interrupted at any instant still
    has the clients' states after the last complete round. States from before a resume are read when they are first
    needed. Beyond a budget of memory, states are on the disk; see `Memory`.

    Entries lie in layers, newer ones over older ones. A layer is never written into, so stores share their layers. A
    new layer absorbs the last one while that is at most twice as long. So a round costs as many operations as it has
    clients, times the logarithm of their number, and never copies everything.

    Attributes:
        in_use: whether any client of the run has a state, of this process or of another.
    """

    def __init__(
        self, memory: Memory | None = None, layers: tuple[dict[str, Entry], ...] = (), in_use: bool = False
    ) -> None:
        self._memory = memory or Memory()
        self._layers = layers or ({},)
        self.in_use = in_use

    def __contains__(self, client: str) -> bool:
        return self._entry(client) is not None

    def _entry(self, client: str) -> Entry | None:
        """Return the client's newest entry, or None."""
        return next((layer[client] for layer in reversed(self._layers) if client in layer), None)

    def get(self, client: str) -> Tree | None:
        """Return the client's state, or None if it never took part. Never write into it.

        Raises:
            OSError: the disk cannot be read.
        """
        entry = self._entry(client)
        return None if entry is None else self._memory.get(entry.state)

    def limit(self, nbytes: int) -> None:
        """Set the budget of memory for states, of this store and of those that share its states."""
        self._memory.budget = nbytes

    def hold(self, state: Tree) -> StoredTree:
        """Store a state, in memory or on the disk, until `after` takes it.

        Raises:
            Mistake: there is no room for it, in memory or on the disk.
        """
        return self._memory.hold(state)

    def read(self, stored: StoredTree) -> Tree:
        """Return a state that `hold` has stored.

        Raises:
            OSError: the disk cannot be read.
        """
        return self._memory.get(stored)

    def after(self, round: int, states: Mapping[str, Tree | StoredTree], others: bool = False) -> Store:
        """Return the store with these clients' states after `round`; this one stays unchanged.

        Args:
            round: the round that made them.
            states: of this process's clients.
            others: whether another process may have new states.

        Raises:
            Mistake: there is no room for it, in memory or on the disk.
        """
        if not states:
            return self if self.in_use or not others else Store(self._memory, self._layers, in_use=True)
        layers = list(self._layers)
        newest = {
            client: Entry(round, state if isinstance(state, StoredTree) else self.hold(state))
            for client, state in states.items()
        }
        while layers and len(layers[-1]) <= 2 * len(newest):
            newest = layers.pop() | newest
        return Store(self._memory, (*layers, newest), in_use=True)

    def defer(self, client: str, round: int, load: Callable[[], Tree]) -> None:
        """Add a state made in `round`, which `load` reads when it is first needed.

        Only for a store without a successor.
        """
        self.in_use = True
        self._layers[-1][client] = Entry(round, StoredTree(None, load))

    def versions(self) -> dict[str, int]:
        """Return client -> the round that made its state."""
        return {client: entry.round for client, entry in self._all().items()}

    def since(self, round: int) -> Iterator[tuple[str, int, Tree]]:
        """Yield (client, round, state) of the states made after `round`, reading them if necessary."""
        for client, entry in self._all().items():
            if entry.round > round:
                yield client, entry.round, self._memory.get(entry.state)

    def _all(self) -> dict[str, Entry]:
        """Return client -> its newest entry."""
        return {client: entry for layer in self._layers for client, entry in layer.items()}
