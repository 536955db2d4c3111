"""A client in one secure sum: it masks its numbers, and helps to take off the masks of all, and of no single one.

    1 advertise    makes two pairs of keys; the public ones go to the server
    2 share_keys   shares its masking key and its own mask's seed among its neighbours, sealed for each
    3 mask         sends its numbers plus its own mask plus or minus a mask with each neighbour
    4 unmask       sends shares: of the seeds of neighbours that stayed, of the keys of those that are gone

Masks of two neighbours cancel in the sum. If one of them is gone, its key is put together and its masks are taken off.
Its own mask protects what it has sent after all, too late: nobody ever gets both its seed and its key, since a client
answers once and for each neighbour sends one of the two, and each takes more than half of the shares. Bonawitz et al.,
"Practical secure aggregation for privacy-preserving machine learning", CCS 2017, figure 4.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from typing import NamedTuple

import numpy as np

from coterie.privacy.ciphers import KeyPair, NotAuthentic, expand, expand_in_pieces, make_seed, seal, unseal
from coterie.privacy.fixed_point import Residues
from coterie.privacy.shares import SHARE_BYTES, split_secret

LEAST_CLIENTS = 3
"""Of two clients, each could take its own numbers from the sum and would have the other's."""


class Unfit(ValueError):
    """A message that a client does not act on; the text says why, as a sentence."""


class Keys(NamedTuple):
    """The public keys of a client in one sum, 32 bytes each."""

    sealing: bytes  # shares for it are sealed with this
    masking: bytes  # masks with it come from this


class Neighbour(NamedTuple):
    """A neighbour of a client: its place, at which its shares lie, and its public keys."""

    place: int
    keys: Keys


class Neighbours(NamedTuple):
    """What the server tells a client before it shares its keys.

    Attributes:
        place: the client's own, from 1.
        needed: how many shares give a secret back.
        others: name -> the neighbour.
    """

    place: int
    needed: int
    others: Mapping[str, Neighbour]


class Ask(NamedTuple):
    """Whose shares the server asks a client for: its neighbours that sent their numbers, and those that did not."""

    stayed: Collection[str]
    gone: Collection[str]


class MaskingClient:
    """One client in one sum. Its keys and seeds are new, and end with it.

    Args:
        name: the client's.
        purpose: what makes this sum different from all others, such as the run and the round. All clients of a sum have
            the same one.
    """

    def __init__(self, name: str, purpose: str) -> None:
        self.name, self.purpose = name, purpose
        self._sealing, self._masking, self._seed = KeyPair(), KeyPair(), make_seed()
        self._sealing_keys: dict[str, bytes] = {}
        self._neighbours: Neighbours | None = None
        self._sealed: Mapping[str, bytes] | None = None
        self._own_share, self._is_done = b"", False

    def advertise(self) -> Keys:
        """Return the client's public keys."""
        return Keys(self._sealing.public_key, self._masking.public_key)

    def share_keys(self, neighbours: Neighbours) -> dict[str, bytes]:
        """Return neighbour -> shares of this client's masking key and seed, sealed for it. The client's own is for
        itself, and travels with the others.

        Raises:
            Unfit: the neighbours would not protect this client, or it has shared with others already.
        """
        places = [neighbours.place, *(other.place for other in neighbours.others.values())]
        keys = [other.keys.masking for other in neighbours.others.values()] + [self._masking.public_key]
        if self._neighbours is not None:
            raise Unfit("this client has shared its keys in this sum already")
        if len(places) < LEAST_CLIENTS or self.name in neighbours.others:
            raise Unfit(f"a secure sum is of {LEAST_CLIENTS} clients or more, and the server names {len(places)}")
        if not len(places) < 2 * neighbours.needed <= 2 * len(places) or min(places) < 1:
            raise Unfit(f"{neighbours.needed} of {len(places)} shares would open this client's numbers")
        if len(set(places)) < len(places) or len(set(keys)) < len(keys):
            raise Unfit("two neighbours have one place or one key")
        self._neighbours = neighbours
        of_key = split_secret(self._masking.private, places, neighbours.needed)
        of_seed = split_secret(self._seed, places, neighbours.needed)
        sealed = {name: self._seal(name, of_key[o.place] + of_seed[o.place]) for name, o in neighbours.others.items()}
        self._own_share = of_seed[neighbours.place]
        return sealed

    def _seal(self, to: str, content: bytes) -> bytes:
        return seal(self._sealing_key(to), content, self.purpose, "shares", self.name, to)

    def _sealing_key(self, other: str) -> bytes:
        assert self._neighbours is not None
        if other not in self._sealing_keys:
            try:
                key = self._sealing.agree(self._neighbours.others[other].keys.sealing, self.purpose, "sealing")
            except NotAuthentic as error:
                raise Unfit(f"the sealing key of {other} is none") from error
            self._sealing_keys[other] = key
        return self._sealing_keys[other]

    def mask(self, numbers: Residues, sealed: Mapping[str, bytes]) -> Residues:
        """Return numbers [d], masked [d].

        Args:
            numbers: of this client.
            sealed: neighbour -> what it sealed for this client, from those that shared their keys.

        Raises:
            Unfit: too few neighbours shared their keys, or it is called again, or before `share_keys`.
        """
        neighbours = self._neighbours
        if neighbours is None or self._sealed is not None:
            raise Unfit("this client masks once in a sum, after it has shared its keys")
        if not sealed.keys() <= neighbours.others.keys() or len(sealed) + 1 < neighbours.needed:
            raise Unfit(f"{len(sealed)} neighbours shared their keys, too few to protect this client's numbers")
        self._sealed = dict(sealed)
        masked = numbers + expand(self._seed, len(numbers))
        for name in sealed:
            try:
                seed = mask_seed(self._masking, neighbours.others[name].keys.masking, self.purpose)
            except NotAuthentic as error:
                raise Unfit(f"the masking key of {name} is none") from error
            add_mask(masked, seed, neighbours.place < neighbours.others[name].place)
        return masked

    def unmask(self, ask: Ask) -> dict[str, bytes]:
        """Return name -> a share: of the seeds of neighbours that stayed and of this client, of the keys of the others.

        Raises:
            Unfit: it was asked for both of one neighbour, for too few, for strangers, or for the second time.
        """
        neighbours, sealed = self._neighbours, self._sealed
        if neighbours is None or sealed is None or self._is_done:
            raise Unfit("this client opens its shares once in a sum, after it has masked its numbers")
        stayed, gone = set(ask.stayed) - {self.name}, set(ask.gone)
        if stayed & gone or stayed | gone != sealed.keys() or self.name not in ask.stayed:
            raise Unfit("the server does not say of each neighbour whether it stayed or is gone")
        if len(stayed) + 1 < neighbours.needed:
            raise Unfit(f"only {len(stayed) + 1} clients stayed, and {neighbours.needed} shares open a sum")
        self._is_done = True  # whatever happens: a second answer could give the other half away
        shares = {self.name: self._own_share}
        for name in sorted(sealed):
            both = self._unseal(name, sealed[name])
            shares[name] = both[SHARE_BYTES:] if name in stayed else both[:SHARE_BYTES]
        return shares

    def _unseal(self, sender: str, sealed: bytes) -> bytes:
        try:
            both = unseal(self._sealing_key(sender), sealed, self.purpose, "shares", sender, self.name)
        except NotAuthentic as error:
            raise Unfit(f"the shares of {sender} were changed on their way") from error
        if len(both) != 2 * SHARE_BYTES:
            raise Unfit(f"the shares of {sender} are of another length")
        return both


def mask_seed(pair: KeyPair, public_key: bytes, purpose: str) -> bytes:
    """Return the seed of the mask that two neighbours share; each one's pair of keys gives it.

    Raises:
        NotAuthentic: the public key is none.
    """
    return pair.agree(public_key, purpose, "mask")


def add_mask(numbers: Residues, seed: bytes, is_lower: bool) -> None:
    """Add the mask of a pair to numbers [d] in place; the one of higher place takes it off, so that the two cancel."""
    for start, mask in expand_in_pieces(seed, len(numbers)):
        piece = numbers[start : start + len(mask)]
        (np.add if is_lower else np.subtract)(piece, mask, out=piece)
