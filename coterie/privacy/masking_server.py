"""The server of a secure sum: it adds up masked numbers, and takes off their masks together.

    1 neighbours      from everyone's public keys, who masks with whom
    2 deliver         the sealed shares go to the neighbours, unread
    3 add             masked numbers, one client after another, in the memory of one
    4 ask, open       the shares of those that stayed take the masks off the sum

The server learns the sum of those whose numbers arrived, and who they are. It is trusted to pass on everyone's own
public keys and to follow these steps. It may be curious, keep all that it sees, and know all that up to
`needed` - 1 of the clients know.

Legend: n clients, d numbers, t shares that give a secret back.
"""

from __future__ import annotations

import hashlib
import math
import random
from collections.abc import Collection, Mapping

import numpy as np

from coterie.core.errors import few, require
from coterie.privacy.ciphers import KeyPair, NotAuthentic, expand
from coterie.privacy.fixed_point import Residues
from coterie.privacy.graph import choose_degree, draw_neighbours
from coterie.privacy.masking_client import LEAST_CLIENTS, Ask, Keys, Neighbour, Neighbours, add_mask, mask_seed
from coterie.privacy.shares import SHARE_BYTES, join_shares

THRESHOLD = 2 / 3
"""The share of a cohort that must stay until the end, where nobody says otherwise."""


class TooFew(ValueError):
    """A sum that is not opened; the text says at which step how many clients were left, and how many it needs."""


def find_quorum(cohort: int, threshold: float = THRESHOLD) -> int:
    """Return how many of a cohort must stay until the end: more than half, see `coterie.privacy.graph`.

    Raises:
        Mistake: the threshold is not from 1/2 to 1.
    """
    require("threshold", threshold, 0.5 <= threshold <= 1, "a share of the cohort, from 0.5 to 1")
    return max(cohort // 2 + 1, math.ceil(threshold * cohort - 1e-9))


class MaskingServer:
    """The server's part in one sum.

    Args:
        purpose: see `MaskingClient`.
        needed: how many clients must stay until the end.

    Attributes:
        total: the sum of the masked numbers so far, [d]; without numbers before the first ones.
    """

    def __init__(self, purpose: str, needed: int) -> None:
        self.purpose, self.needed = purpose, needed
        self.total = np.zeros(0, np.uint64)
        self._keys: dict[str, Keys] = {}
        self._neighbours: dict[str, list[str]] = {}
        self._shares_needed = needed
        self._shared: dict[str, None] = {}
        self._stayed: dict[str, None] = {}

    @property
    def clients(self) -> list[str]:
        """The clients whose numbers are in the sum."""
        return list(self._stayed)

    def neighbours(self, keys: Mapping[str, Keys]) -> dict[str, Neighbours]:
        """Return client -> its neighbours, once the clients have advertised their keys.

        Raises:
            TooFew: too few have.
        """
        self._check("sent keys", keys, LEAST_CLIENTS)
        self._keys = dict(keys)
        degree = choose_degree(len(keys), self.needed)
        drawn = hashlib.sha256(self.purpose.encode() + b"".join(keys[name].masking for name in keys)).digest()
        self._neighbours = draw_neighbours(list(keys), degree.neighbours, random.Random(drawn))
        self._shares_needed = degree.needed
        self._place = {name: k for k, name in enumerate(keys, start=1)}
        return {
            name: Neighbours(
                self._place[name],
                degree.needed,
                {o: Neighbour(self._place[o], keys[o]) for o in self._neighbours[name]},
            )
            for name in keys
        }

    def deliver(self, sealed: Mapping[str, Mapping[str, bytes]]) -> dict[str, dict[str, bytes]]:
        """Return client -> neighbour -> what that neighbour sealed for it, for the clients that have shared their keys.

        Who has not shared with exactly its neighbours counts as one that has not.

        Raises:
            TooFew: too few have.
        """
        right = [name for name in self._keys if set(sealed.get(name, ())) == set(self._neighbours[name])]
        self._check("shared their keys", right)
        self._shared = dict.fromkeys(right)
        return {
            name: {other: sealed[other][name] for other in self._neighbours[name] if other in self._shared}
            for name in right
        }

    def add(self, client: str, masked: Residues) -> None:
        """Add one client's masked numbers [d]. A client that is not awaited, or has sent them, is left out.

        Raises:
            ValueError: it is not awaited.
        """
        if not self._stayed:
            self.total = np.zeros(masked.shape, np.uint64)
        if client not in self._shared or client in self._stayed or masked.shape != self.total.shape:
            raise ValueError(f"masked numbers of {client} are not awaited")
        self._stayed[client] = None
        np.add(self.total, masked, out=self.total)

    def ask(self) -> dict[str, Ask]:
        """Return client -> whose shares it is asked for, of the clients that stayed.

        Raises:
            TooFew: too few have.
        """
        self._check("sent their numbers", self._stayed)
        asks = {}
        for name in self._stayed:
            near = [other for other in self._neighbours[name] if other in self._shared]
            stayed = [other for other in near if other in self._stayed]
            asks[name] = Ask([name, *stayed], [other for other in near if other not in self._stayed])
        return asks

    def open(self, shares: Mapping[str, Mapping[str, bytes]]) -> Residues:
        """Return the sum [d] of the numbers of those that stayed, from client -> the shares that it sent.

        Raises:
            TooFew: too few have sent shares, or theirs do not belong together.
        """
        self._check("opened their shares", [name for name in shares if name in self._stayed])
        for name in self._shared:
            if name in self._stayed:
                self.total -= expand(self._secret(name, shares), len(self.total))
            else:
                self._take_off_pairs(name, self._secret(name, shares))
        return self.total

    def _secret(self, owner: str, shares: Mapping[str, Mapping[str, bytes]]) -> bytes:
        """Return the seed of a client that stayed, or the masking key of one that is gone."""
        holders = sorted([owner, *self._neighbours[owner]], key=self._place.__getitem__)  # alike for many owners
        found = {
            self._place[holder]: shares[holder][owner]
            for holder in holders
            if len(shares.get(holder, {}).get(owner, b"")) == SHARE_BYTES
        }
        if len(found) < self._shares_needed:
            raise TooFew(f"{len(found)} shares of {owner} arrived, and {self._shares_needed} open the sum")
        try:
            return join_shares(dict(list(found.items())[: self._shares_needed]))
        except ValueError as error:
            raise TooFew(f"the shares of {owner} do not belong together") from error

    def _take_off_pairs(self, gone: str, private: bytes) -> None:
        """Take off the masks between a client that is gone and those that stayed."""
        pair = KeyPair(private)
        if pair.public_key != self._keys[gone].masking:
            raise TooFew(f"the shares of {gone} do not belong together")
        for other in self._neighbours[gone]:
            if other in self._stayed:
                try:
                    seed = mask_seed(pair, self._keys[other].masking, self.purpose)
                except NotAuthentic as error:
                    raise TooFew(f"the masking key of {other} is none") from error
                add_mask(self.total, seed, self._place[gone] < self._place[other])

    def _check(self, did: str, clients: Collection[str], least: int = 1) -> None:
        """Refuse to go on with too few clients."""
        needed = max(self.needed, least)
        if len(clients) < needed:
            who = f" ({few(list(clients))})" if clients else ""
            raise TooFew(f"only {len(clients)} clients{who} {did}, and a secure sum needs {needed}")
