"""Clients whose data are elsewhere: only their numbers of examples are known here."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence

from coterie.core.examples import Examples


class CountedClients(Mapping[str, Examples]):
    """Clients whose data are elsewhere: client -> its number of examples. Looking at the data fails.

    >>> CountedClients({"north": 5, "south": 3}).sizes(["south"])
    [3]
    """

    def __init__(self, counts: Mapping[str, int]) -> None:
        self._counts = dict(counts)

    def sizes(self, clients: Sequence[str]) -> list[int]:
        """Return how many examples each of these clients holds."""
        return [self._counts[client] for client in clients]

    def __getitem__(self, client: str) -> Examples:
        if client not in self._counts:
            raise KeyError(client)
        raise LookupError(f"the data of client {client} are at its silo, not here")

    def __contains__(self, client: object) -> bool:
        return client in self._counts

    def __iter__(self) -> Iterator[str]:
        return iter(self._counts)

    def __len__(self) -> int:
        return len(self._counts)
