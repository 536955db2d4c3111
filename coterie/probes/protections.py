"""What an attacker sees of a client's update under each protection.

    clip C               U min(1, C / |U|)                       bounds a client; hides nothing by itself
    noise z              clip C, then + N(0, (z C)^2)            at each client, before anybody sees the update
    float16, top-k       what the codecs send
    sum                  U_1 + ... + U_n                         all that a secure sum shows
    sum, noise z         the clipped sum, then + N(0, (z C)^2)   all that whoever sees the new model gets

Noise that a trusted server adds hides nothing from that server: it sees what "clip" shows. Bounds and noise are those
of `coterie.privacy`. A row with noise has the epsilon of one such release at `DELTA`; a run makes one in each round.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import torch
from torch import Tensor

from coterie.core import tree
from coterie.core.codecs.top_k import top_k
from coterie.core.errors import Mistake
from coterie.core.transforms import Transform, cast
from coterie.core.tree import Tree
from coterie.privacy.accountant import Event, spent
from coterie.privacy.bounded_sum import bound
from coterie.privacy.noise import add_noise

DELTA = 1e-5
"""At which the epsilon of a row is stated."""


class Sight(NamedTuple):
    """What an attacker sees.

    Attributes:
        name: of the protection, for a table.
        update: parameters, a flat dict.
        clients: how many clients' updates it is the sum of.
        epsilon: of one release at `DELTA`; None without noise, and where dp-accounting is not installed.
    """

    name: str
    update: Tree
    clients: int = 1
    epsilon: float | None = None


def see(
    updates: Sequence[Tree], clip_norm: float, noise_multipliers: Sequence[float], share: float, key: Tensor
) -> list[Sight]:
    """Return what an attacker of the first client sees, without a protection and with each.

    Args:
        updates: of the cohort, the attacked client's first.
        clip_norm: C.
        noise_multipliers: every z to try.
        share: of an update's entries that top-k sends.
        key: of the noise, int64 [].
    """
    own, n = updates[0], len(updates)
    clipped = [bound(update, clip_norm)[0] for update in updates]
    total, bounded = _sum(updates), _sum(clipped)

    def blur(update: Tree, z: float, place: str) -> Tree:
        return _in_type_of(own, add_noise(update, z * clip_norm, f"{int(key)}\x1fnoise of a probe\x1f{place}\x1f{z}"))

    sights = [Sight("none", own), Sight(f"clip {clip_norm:.3g}", _in_type_of(own, clipped[0]))]
    sights += [
        Sight(f"noise {z:g} at the client", blur(clipped[0], z, "client"), epsilon=_epsilon(z))
        for z in noise_multipliers
    ]
    sights += [
        Sight("float16", _apply(cast(torch.float16), own)),
        Sight(f"top-k {share:g}", _apply(top_k(share), own)),
    ]
    if n > 1:
        sights.append(Sight(f"sum of {n} clients", total, n))
        sights += [
            Sight(f"sum of {n} clients, noise {z:g}", blur(bounded, z, "sum"), n, _epsilon(z))
            for z in noise_multipliers
        ]
    return sights


def _epsilon(multiplier: float) -> float | None:
    """Return what one release costs; None where that cannot be computed here."""
    try:
        return spent({Event(multiplier): 1}, DELTA) if multiplier > 0 else None
    except Mistake:  # dp-accounting is not installed
        return None


def _in_type_of(like: Tree, update: Tree) -> Tree:
    return tree.map(lambda x, own: x.to(own.dtype), update, like)


def _apply(codec: Transform, update: Tree) -> Tree:
    """Return an update after a codec's way to the server."""
    payload, _ = codec.encode(update, codec.init(update), torch.tensor(0))
    return codec.decode(payload)


def _sum(updates: Sequence[Tree]) -> Tree:
    """Return the sum of updates, in their order."""
    return tree.map(lambda *each: torch.stack(each).sum(0), *updates)
