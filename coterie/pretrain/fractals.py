"""Pictures of fractals: the chaos game, many systems at once.

    x_0 = the fixed point of the first map                # which lies on the attractor
    x_t = A_i x_{t-1} + b_i,  i with probability |det A_i| / sum_j |det A_j|,  t = 1 ... T
    pixel = (x - min) / (max - min) * (s - 1), cut to whole numbers, for each axis
    each point adds 1 to the pixels of its 3 x 3 neighbourhood that the mask keeps, each with probability 1/2
    grey = count / largest count

The orbit is not run point by point. Affine maps compose to affine maps, so a sequence of T is cut into blocks; the maps
of all blocks are composed side by side, then the blocks are run through one after another: about 2 sqrt(T) steps on
long vectors instead of T steps on short ones, and the same orbit to rounding. And a sum over points of masks is a
histogram under a mask: nine additions for each pixel, not for each point.

Ours, where the authors' text and code were not at hand: pixels are cut, not rounded; a mask that keeps nothing keeps
its middle; what falls off the picture is left out.

Legend: B pictures, N maps of a system, T points of an orbit, K blocks of L points, s pixels of a side.

Chen, Tu, Li, Shen, Chao: On the Importance and Applicability of Pre-Training for Federated Learning, ICLR 2023.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor
from torch.nn import functional as F

from coterie.core import rng
from coterie.pretrain.iterated_functions import Systems, draws

CHUNK = 125_000
"""How many points are followed at a time: what fits a core's cache."""
_LEAST_DETERMINANT = 1e-12


def render(systems: Systems, keys: Tensor, points: int, size: int) -> Tensor:
    """Pictures in grey, float32 [B, s, s] from 0 to 1.

    Picture b is a function of system b, keys[b], `points` and `size`, whatever it is rendered together with.

    Args:
        systems: B of them.
        keys: [B].
        points: T.
        size: s.
    """
    together = max(1, CHUNK // points)
    parts = range(0, len(keys), together)
    return torch.cat([_rendered(_some(systems, k, together), keys[k : k + together], points, size) for k in parts])


def _some(systems: Systems, first: int, number: int) -> Systems:
    return Systems(systems.maps[first : first + number], systems.number[first : first + number])


def _rendered(systems: Systems, keys: Tensor, points: int, size: int) -> Tensor:
    x = orbit(systems, rng.fold(keys, 0), points)  # [2, T, B]
    histogram = _histogram(x, size)
    kept = draws(rng.fold(keys, 1), 9) < 0.5  # [B, 9]
    kept[:, 4] |= ~kept.any(1)
    counts = _patched(histogram, kept.reshape(-1, 3, 3).float())
    return counts / counts.amax((1, 2), keepdim=True).clamp(min=1)


def orbit(systems: Systems, keys: Tensor, points: int) -> Tensor:
    """The points of each system's orbit, float64 [2, T, B], in an order of their own."""
    length = _divisor(points)
    run = _taken(systems, _choices(systems, keys, points).T.reshape(points // length, length, -1).transpose(0, 1))
    for k in range(1, length):
        run[:, :, k] = _composed(run[:, :, k], run[:, :, k - 1])
    starts = _through(run[:, :, -1], fixed_point(systems.maps[:, 0]))  # [2, K, B]
    return _applied(run, starts[:, None]).reshape(2, points, -1)


def _divisor(n: int) -> int:
    """The largest divisor of n up to its root."""
    return next(d for d in range(math.isqrt(n), 0, -1) if n % d == 0)


def _taken(systems: Systems, which: Tensor) -> Tensor:
    """The maps `which` [L, K, B] of all systems, [2, 3, L, K, B]."""
    found = torch.empty(2, 3, *which.shape, dtype=systems.maps.dtype)
    table, flat = systems.maps.permute(2, 3, 0, 1).reshape(6, -1), which.reshape(-1)
    for entries, place in zip(table, found.view(6, -1), strict=True):
        torch.index_select(entries, 0, flat, out=place)
    return found


def _choices(systems: Systems, keys: Tensor, points: int) -> Tensor:
    """Which map each step takes, [B, T], counted through the maps of all systems."""
    batch, most = systems.maps.shape[:2]
    weight = torch.linalg.det(systems.maps[..., :2]).abs().clamp(min=_LEAST_DETERMINANT)  # [B, N]
    weight = weight * (torch.arange(most) < systems.number[:, None])
    bounds = (weight.cumsum(1) / weight.sum(1, keepdim=True))[:, :-1]  # [B, N - 1]
    u = draws(keys, points)
    which = most * torch.arange(batch)[:, None] + torch.zeros(1, points, dtype=torch.int64)
    for k in range(most - 1):
        which += u >= bounds[:, k, None]
    return which


def _composed(after: Tensor, before: Tensor) -> Tensor:
    """after(before(x)) of affine maps [2, 3, ...]."""
    both = after[:, 0, None] * before[0] + after[:, 1, None] * before[1]
    both[:, 2] += after[:, 2]
    return both


def _applied(maps: Tensor, x: Tensor) -> Tensor:
    """Affine maps [2, 3, ...] of points [2, ...]."""
    return maps[:, 0] * x[0] + maps[:, 1] * x[1] + maps[:, 2]


def _through(blocks: Tensor, x: Tensor) -> Tensor:
    """Where each block starts [2, K, B]: x [2, B] sent through the blocks [2, 3, K, B] before it."""
    starts = []
    for k in range(blocks.shape[2]):
        starts.append(x)
        x = _applied(blocks[:, :, k], x)
    return torch.stack(starts, 1)


def fixed_point(maps: Tensor) -> Tensor:
    """(I - A)^-1 b of affine maps [B, 2, 3], as [2, B]."""
    found: Tensor = torch.linalg.solve(torch.eye(2, dtype=maps.dtype) - maps[..., :2], maps[..., 2])
    return found.T


def _histogram(x: Tensor, size: int) -> Tensor:
    """How many of the points x [2, T, B] fall into each pixel, float32 [B, s, s]."""
    low, high = x.amin(1, keepdim=True), x.amax(1, keepdim=True)
    scale = (size - 1) / (high - low).clamp(min=torch.finfo(x.dtype).tiny)
    column, row = ((x - low) * scale).long()  # [T, B] each
    batch = x.shape[2]
    place = (torch.arange(batch) * size + row) * size + column
    return torch.bincount(place.reshape(-1), minlength=batch * size * size).reshape(batch, size, size).float()


def _patched(histogram: Tensor, kept: Tensor) -> Tensor:
    """Each count of [B, s, s] added to the pixels around it that its picture's mask [B, 3, 3] keeps."""
    size = histogram.shape[1]
    padded = F.pad(histogram, [1, 1, 1, 1])
    total = torch.zeros_like(histogram)
    for i in range(3):
        for j in range(3):
            total.addcmul_(padded[:, i : i + size, j : j + size], kept[:, 2 - i, 2 - j, None, None])
    return total
