"""What clients keep between rounds, held for them while they are simulated."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from typing import NamedTuple

from coterie.core.tree import Tree
from coterie.loop.spill import Held, Memory


class Entry(NamedTuple):
    """A client's state, and the round that made it."""

    round: int
    state: Held


class Store:
    """Client state by client and by the round that made it.

    A round does not change the store that it was given: it makes another one (`after`), so that a run interrupted at
    any instant still holds the clients' states as the last complete round left them. Entries made before a resume are
    read when first asked for, by `load`. Beyond a budget of memory states are on the disk; see `Memory`.

    Entries stand in layers, a later one over those before it. A layer is never written into, and so is shared by all
    stores that have it; a new one swallows the last as long as that is not twice as long. So a round costs as many
    operations as it has clients, times the logarithm of their number, and not a copy of everything.
    """

    def __init__(self, memory: Memory | None = None, layers: tuple[dict[str, Entry], ...] = ()) -> None:
        self._memory = memory or Memory()
        self._layers = layers or ({},)

    def __contains__(self, client: str) -> bool:
        return self._entry(client) is not None

    def _entry(self, client: str) -> Entry | None:
        return next((layer[client] for layer in reversed(self._layers) if client in layer), None)

    def get(self, client: str) -> Tree | None:
        """The client's state, or None if it never took part. Not to be written into.

        Raises:
            OSError: it is on a disk that cannot be read.
        """
        entry = self._entry(client)
        return None if entry is None else self._memory.get(entry.state)

    def limit(self, nbytes: int) -> None:
        """Let states take this much memory, from the next one on; so for all stores that share them."""
        self._memory.budget = nbytes

    def hold(self, state: Tree) -> Held:
        """A state for `after`, in memory or on the disk until then.

        Raises:
            Mistake: the memory's budget is used up, and the disk is full.
        """
        return self._memory.hold(state)

    def read(self, held: Held) -> Tree:
        """What is held.

        Raises:
            OSError: it is on a disk that cannot be read.
        """
        return self._memory.get(held)

    def after(self, round: int, states: Mapping[str, Tree | Held]) -> Store:
        """The store with these clients' states after `round`, held by it or not yet; this one stays as it is.

        Raises:
            Mistake: the memory's budget is used up, and the disk is full.
        """
        if not states:
            return self
        layers = list(self._layers)
        newest = {
            client: Entry(round, state if isinstance(state, Held) else self.hold(state))
            for client, state in states.items()
        }
        while layers and len(layers[-1]) <= 2 * len(newest):
            newest = layers.pop() | newest
        return Store(self._memory, (*layers, newest))

    def defer(self, client: str, round: int, load: Callable[[], Tree]) -> None:
        """A state made in `round` that `load` reads when it is first needed. For a store that has no successor yet."""
        self._layers[-1][client] = Entry(round, Held(None, load))

    def versions(self) -> dict[str, int]:
        """client -> the round that made its state."""
        return {client: entry.round for client, entry in self._all().items()}

    def since(self, round: int) -> Iterator[tuple[str, int, Tree]]:
        """(client, round, state) of the states made after `round`, those that are still to be read included."""
        for client, entry in self._all().items():
            if entry.round > round:
                yield client, entry.round, self._memory.get(entry.state)

    def _all(self) -> dict[str, Entry]:
        return {client: entry for layer in self._layers for client, entry in layer.items()}
