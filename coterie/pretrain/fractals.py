"""Render pictures of fractals by the chaos game, many systems at once.

    x_0 = the fixed point of the first map                # which lies on the attractor
    x_t = A_i x_{t-1} + b_i,  i with probability |det A_i| / sum_j |det A_j|,  t = 1 ... T
    pixel = (x - min) / (max - min) * (s - 1), cut to whole numbers, for each axis
    each point adds 1 to the pixels of its 3 x 3 neighbourhood that the mask keeps, each with probability 1/2
    grey = count / largest count

The orbit is not computed point by point. Affine maps compose to affine maps, so a sequence of T is cut into blocks. The
maps of all blocks are composed side by side, and then the blocks are applied one after another. This takes about
2 sqrt(T) steps on long vectors instead of T steps on short ones, and gives the same orbit to rounding. A sum over
points of masks is a histogram under a mask: nine additions for each pixel, not for each point.

Ours, because the authors' text and code were not at hand: pixels are cut, not rounded; a mask that keeps nothing keeps
its middle; what falls off the picture is left out.

Legend: B pictures, N maps of a system, T points of an orbit, K blocks of L points, s pixels per side.

Chen, Tu, Li, Shen, Chao: On the Importance and Applicability of Pre-Training for Federated Learning, ICLR 2023.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor
from torch.nn import functional as F

from coterie.core import rng
from coterie.pretrain.iterated_functions import Systems, uniform_rows

CHUNK_POINTS = 125_000
"""How many points are computed at a time, so that they fit the cache of a core."""
_MIN_DETERMINANT = 1e-12
_MIN_EXTENT = 1e-300
"""Of a picture: an orbit that never leaves its first point has none, and a number of pixels over it must be finite."""


def render(systems: Systems, keys: Tensor, points: int, size: int) -> Tensor:
    """Render each system as a grey picture, float32 [B, s, s] from 0 to 1.

    Picture b is a function of system b, keys[b], `points` and `size` alone; the other systems do not matter.

    Args:
        systems: B of them.
        keys: [B].
        points: T.
        size: s.
    """
    together = max(1, CHUNK_POINTS // points)
    starts = range(0, len(keys), together)
    return torch.cat(
        [_render_chunk(_slice(systems, k, together), keys[k : k + together], points, size) for k in starts]
    )


def _slice(systems: Systems, first: int, number: int) -> Systems:
    return Systems(systems.maps[first : first + number], systems.number[first : first + number])


def _render_chunk(systems: Systems, keys: Tensor, points: int, size: int) -> Tensor:
    x = orbit(systems, rng.fold(keys, 0), points)  # [2, T, B]
    histogram = _histogram(x, size)
    mask = uniform_rows(rng.fold(keys, 1), 9) < 0.5  # [B, 9]
    mask[:, 4] |= ~mask.any(1)
    counts = _add_neighbours(histogram, mask.reshape(-1, 3, 3).float())
    return counts / counts.amax((1, 2), keepdim=True).clamp(min=1)


def orbit(systems: Systems, keys: Tensor, points: int) -> Tensor:
    """Return the points of each system's orbit, float64 [2, T, B], ordered by their place in a block, then by block."""
    length = _largest_divisor(points)
    choices = _choose_maps(systems, keys, points).T.reshape(points // length, length, -1).transpose(0, 1)
    run = _select_maps(systems, choices)
    for k in range(1, length):
        run[:, :, k] = _compose(run[:, :, k], run[:, :, k - 1])
    starts = _block_starts(run[:, :, -1], fixed_point(systems.maps[:, 0]))  # [2, K, B]
    return _apply(run, starts[:, None]).reshape(2, points, -1)


def _largest_divisor(n: int) -> int:
    """Return the largest divisor of n that is at most its root."""
    return next(d for d in range(math.isqrt(n), 0, -1) if n % d == 0)


def _select_maps(systems: Systems, which: Tensor) -> Tensor:
    """Return the maps with the numbers `which` [L, K, B], counted through all systems, as [2, 3, L, K, B]."""
    selected = torch.empty(2, 3, *which.shape, dtype=systems.maps.dtype)
    table, flat = systems.maps.permute(2, 3, 0, 1).reshape(6, -1), which.reshape(-1)
    for entries, place in zip(table, selected.view(6, -1), strict=True):
        torch.index_select(entries, 0, flat, out=place)
    return selected


def _choose_maps(systems: Systems, keys: Tensor, points: int) -> Tensor:
    """Choose a random map for each step, [B, T], as a number that counts the maps of all systems."""
    batch, most = systems.maps.shape[:2]
    weight = torch.linalg.det(systems.maps[..., :2]).abs().clamp(min=_MIN_DETERMINANT)  # [B, N]
    weight = weight * (torch.arange(most) < systems.number[:, None])
    bounds = (weight.cumsum(1) / weight.sum(1, keepdim=True))[:, :-1]  # [B, N - 1]
    u = uniform_rows(keys, points)
    which = most * torch.arange(batch)[:, None] + torch.zeros(1, points, dtype=torch.int64)
    for k in range(most - 1):
        which += u >= bounds[:, k, None]
    return which


def _compose(after: Tensor, before: Tensor) -> Tensor:
    """Return after(before(x)) of affine maps [2, 3, ...]."""
    both = after[:, 0, None] * before[0] + after[:, 1, None] * before[1]
    both[:, 2] += after[:, 2]
    return both


def _apply(maps: Tensor, x: Tensor) -> Tensor:
    """Apply affine maps [2, 3, ...] to points [2, ...]."""
    return maps[:, 0] * x[0] + maps[:, 1] * x[1] + maps[:, 2]


def _block_starts(blocks: Tensor, x: Tensor) -> Tensor:
    """Return the point at which each block starts [2, K, B]: x [2, B] after the blocks [2, 3, K, B] before it."""
    starts = []
    for k in range(blocks.shape[2]):
        starts.append(x)
        x = _apply(blocks[:, :, k], x)
    return torch.stack(starts, 1)


def fixed_point(maps: Tensor) -> Tensor:
    """Return (I - A)^-1 b of affine maps [B, 2, 3], as [2, B]."""
    points: Tensor = torch.linalg.solve(torch.eye(2, dtype=maps.dtype) - maps[..., :2], maps[..., 2])
    return points.T


def _histogram(x: Tensor, size: int) -> Tensor:
    """Count the points x [2, T, B] in each pixel, float32 [B, s, s]."""
    low, high = x.amin(1, keepdim=True), x.amax(1, keepdim=True)
    scale = (size - 1) / (high - low).clamp(min=_MIN_EXTENT)
    column, row = ((x - low) * scale).long()  # [T, B] each
    batch = x.shape[2]
    place = (torch.arange(batch) * size + row) * size + column
    return torch.bincount(place.reshape(-1), minlength=batch * size * size).reshape(batch, size, size).float()


def _add_neighbours(histogram: Tensor, mask: Tensor) -> Tensor:
    """Add each count of [B, s, s] to the pixels around it that its picture's mask [B, 3, 3] keeps."""
    size = histogram.shape[1]
    padded = F.pad(histogram, [1, 1, 1, 1])
    total = torch.zeros_like(histogram)
    for i in range(3):
        for j in range(3):
            total.addcmul_(padded[:, i : i + size, j : j + size], mask[:, 2 - i, 2 - j, None, None])
    return total
