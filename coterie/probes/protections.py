"""What an attacker sees of a client's update under each protection.

    clip C               U min(1, C / |U|)                       bounds a client; hides nothing by itself
    noise z              clip C, then + N(0, (z C)^2)            at each client, before anybody sees the update
    float16, top-k       what the codecs send
    sum                  U_1 + ... + U_n                         all that a secure sum shows
    sum, noise z         the clipped sum, then + N(0, (z C)^2)   all that whoever sees the new model gets

Noise that a trusted server adds hides nothing from that server: it sees what "clip" shows.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import torch
from torch import Tensor

from coterie.core import rng, tree
from coterie.core.codecs.top_k import top_k
from coterie.core.transforms import Transform, cast, clip
from coterie.core.tree import Tree


class Sight(NamedTuple):
    """What an attacker sees.

    Attributes:
        name: of the protection, for a table.
        update: parameters, a flat dict.
        clients: how many clients' updates it is the sum of.
    """

    name: str
    update: Tree
    clients: int = 1


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
    clipped = [_apply(clip(clip_norm), update) for update in updates]
    total, bounded = _sum(updates), _sum(clipped)
    sights = [Sight("none", own), Sight(f"clip {clip_norm:.3g}", clipped[0])]
    sights += [
        Sight(f"noise {z:g} at the client", add_noise(clipped[0], z * clip_norm, rng.fold(key, k)))
        for k, z in enumerate(noise_multipliers)
    ]
    sights += [
        Sight("float16", _apply(cast(torch.float16), own)),
        Sight(f"top-k {share:g}", _apply(top_k(share), own)),
    ]
    if n > 1:
        sights.append(Sight(f"sum of {n} clients", total, n))
        sights += [
            Sight(f"sum of {n} clients, noise {z:g}", add_noise(bounded, z * clip_norm, rng.fold(key, -1 - k)), n)
            for k, z in enumerate(noise_multipliers)
        ]
    return sights


def add_noise(update: Tree, deviation: float, key: Tensor) -> Tree:
    """Return an update with Gaussian noise of this standard deviation on every entry."""
    generator = rng.generator(int(key), "noise of a probe")

    def blur(x: Tensor) -> Tensor:
        noise = torch.randn(x.shape, generator=generator, dtype=torch.float64)
        return x + (deviation * noise).to(x)

    return tree.map(blur, update)


def _apply(codec: Transform, update: Tree) -> Tree:
    """Return an update after a codec's way to the server."""
    payload, _ = codec.encode(update, codec.init(update), torch.tensor(0))
    return codec.decode(payload)


def _sum(updates: Sequence[Tree]) -> Tree:
    """Return the sum of updates, in their order."""
    return tree.map(lambda *each: torch.stack(each).sum(0), *updates)
