"""Gaussian noise that nobody can take away again who does not know the key.

The bits are SHAKE-256 of the key (FIPS 202), whose output nobody can tell from chance, and are as many as are needed.
Generators of PyTorch and NumPy are faster, and all of their draws can be found from some of them. Draws are float64, by
the transformation of Box and Muller (1958); the largest possible draw is 8.6 standard deviations.

A float is not a real number: an attacker who sees every last bit of a noisy sum can learn a little from which numbers
are possible (Mironov: On Significance of the Least Significant Bits for Differential Privacy, CCS 2012). The noise is
added in float64 and the result rounded to the model's type, which hides most of these bits; nothing is proved about the
rest.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from math import prod

import numpy as np
import torch
from torch import Tensor

from coterie.core import tree
from coterie.core.tree import Tree

BLOCK = 2**20
"""Draws that are made at a time."""


def gaussian(key: str, shape: Sequence[int]) -> Tensor:
    """Return independent standard normal draws of a shape, float64 on the CPU; a function of the key and the place."""
    n = prod(shape)
    blocks = [_block(f"{key}\x1f{k}", min(BLOCK, n - k * BLOCK)) for k in range(-(-n // BLOCK))]
    return torch.from_numpy(np.concatenate(blocks or [np.zeros(0)])).reshape(tuple(shape))


def _block(key: str, n: int) -> np.ndarray:
    """Return n draws [n]; two come from each pair of uniform numbers."""
    pairs = (n + 1) // 2
    bits = np.frombuffer(hashlib.shake_256(key.encode()).digest(16 * pairs), dtype="<u8") >> np.uint64(11)
    u, v = bits[:pairs].astype(np.float64), bits[pairs:].astype(np.float64)  # 53 bits each
    radius, angle = np.sqrt(-2 * np.log((u + 1) * 2.0**-53)), 2 * np.pi * v * 2.0**-53
    return np.concatenate([radius * np.cos(angle), radius * np.sin(angle)])[:n]


def add_noise(total: Tree, deviation: Tree | float, key: str) -> Tree:
    """Return a tree plus Gaussian noise of a standard deviation, drawn for each leaf by its path.

    Args:
        total: float64 leaves.
        deviation: of every coordinate; or a mapping from the first key of a path to that of its subtree.
        key: a secret, and what the noise is for.
    """
    noisy = {
        path: leaf
        + (deviation[path[0]] if isinstance(deviation, dict) else deviation)
        * gaussian(f"{key}\x1f{tree.pointer(path)}", leaf.shape).to(leaf.device)
        for path, leaf in tree.items(total)
    }
    return tree.unflatten({tree.pointer(path): leaf for path, leaf in noisy.items()}, tree.structure(total))
