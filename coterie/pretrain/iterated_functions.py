"""Draw iterated function systems: a few affine maps of the plane, x -> A_i x + b_i, whose attractor is a fractal.

    n ~ U{2, 3, 4} maps      A_i = U_i diag(s_i1, s_i2) V_i      b_i ~ U(-1, 1)^2
    U_i, V_i: a rotation by U(-pi, pi) times diag(+-1, +-1)
    singular values: sum_i (s_i1 + 2 s_i2) = alpha ~ U((5 + n) / 2, (6 + n) / 2), 0 <= s_i2 <= s_i1 <= 1

The range of the sum keeps an attractor from being a point (too small) or a blur (too large).

Systems are numbered, and number i is a function of (rng seed, i), so none is stored.

Legend: B systems, n maps of a system, N the most maps of any, D numbers drawn for a system. Maps beyond a system's own
are zero.

Anderson, Farrell: Improving Fractal Pre-training, WACV 2022; Chen, Tu, Li, Shen, Chao: On the Importance
and Applicability of Pre-Training for Federated Learning, ICLR 2023, from their code.
"""

from __future__ import annotations

import math
from typing import NamedTuple

import torch
from torch import Tensor

from coterie.core import rng

MIN_MAPS, MAX_MAPS = 2, 4
"""Of a system."""
MAX_JITTER_TRIES = 4

_DRAWS_PER_MAP = 10  # two for singular values, two angles, four signs, two for b


class Systems(NamedTuple):
    """B iterated function systems."""

    maps: Tensor  # [B, N, 2, 3] float64: A_i beside b_i
    number: Tensor  # [B] int64: n


def uniform_rows(keys: Tensor, n: int) -> Tensor:
    """Return random numbers in [0, 1), float64 [B, n]; each row is a function of its key in `keys` [B] alone."""
    rows: Tensor = torch.func.vmap(lambda key: rng.uniform(key, [n]))(keys)
    return rows.double()


def draw_systems(rng_seed: int, index: Tensor) -> Systems:
    """Draw the systems with the numbers `index` [B]; each depends on the seed and its number alone."""
    u = uniform_rows(rng.fold(rng.key(rng_seed, "systems"), index), 2 + MAX_MAPS * _DRAWS_PER_MAP)
    number = MIN_MAPS + (u[:, 0] * (MAX_MAPS - MIN_MAPS + 1)).long()
    alpha = (5 + number + u[:, 1]) / 2
    own = u[:, 2:].reshape(-1, MAX_MAPS, _DRAWS_PER_MAP)
    sizes = singular_values(number, alpha, own[..., :2])  # [B, N, 2]
    left = _rotation(own[..., 2]) * _signs(own[..., 4:6])[..., None, :]
    right = _rotation(own[..., 3]) * _signs(own[..., 6:8])[..., None, :]
    a = (left * sizes[..., None, :]) @ right
    b = 2 * own[..., 8:, None] - 1  # [B, N, 2, 1]
    exists = torch.arange(MAX_MAPS) < number[:, None]
    return Systems(torch.cat([a, b], -1) * exists[..., None, None], number)


def singular_values(number: Tensor, alpha: Tensor, u: Tensor) -> Tensor:
    """Return singular values [B, N, 2], the larger one first, with sum_i (s_i1 + 2 s_i2) = alpha [B].

    They are drawn one after another, evenly between two limits. The lower limit leaves the other maps no more than they
    can take (3 each); the upper limit leaves them no less than 0. The last map takes the rest.

    Args:
        number: how many maps each system has, n [B].
        alpha: the sum.
        u: random numbers in [0, 1), [B, N, 2].
    """
    left, needed = alpha, alpha - 3 * number + 3  # of the sum: for all maps to come, and at least for this one
    pairs = []
    for i in range(u.shape[1]):
        large = _interpolate((needed / 3).clamp(min=0), left.clamp(max=1), u[:, i, 0])
        after = left - large
        small = _interpolate(((needed - large) / 2).clamp(min=0), torch.minimum(large, after / 2), u[:, i, 1])
        last_small = _interpolate(((left - 1) / 2).clamp(min=0), left / 3, u[:, i, 1])
        last = number == i + 1
        pair = torch.stack([torch.where(last, left - 2 * last_small, large), torch.where(last, last_small, small)], -1)
        pairs.append(torch.where((number > i)[:, None], pair, 0.0))
        spent = pair[:, 0] + 2 * pair[:, 1]
        left, needed = left - spent, needed - spent + 3
    return torch.stack(pairs, 1)


def _interpolate(low: Tensor, high: Tensor, u: Tensor) -> Tensor:
    return low + (high - low) * u


def _rotation(u: Tensor) -> Tensor:
    """Return rotations [..., 2, 2] by angles in (-pi, pi), from random numbers [...]."""
    angle = math.pi * (2 * u - 1)
    sin, cos = angle.sin(), angle.cos()
    return torch.stack([torch.stack([cos, -sin], -1), torch.stack([sin, cos], -1)], -2)


def _signs(u: Tensor) -> Tensor:
    """Return -1 where u is below one half, and 1 elsewhere."""
    return torch.where(u < 0.5, -1.0, 1.0).double()


def jitter_systems(systems: Systems, keys: Tensor) -> Systems:
    """Scale one map of each system, A_i and b_i alike, by a factor of U(0.8, 1.1).

    The map and the factor are drawn until no singular value is above 1, at most four times; after that the system stays
    unchanged. `keys` is [B], one for each system.
    """
    u = uniform_rows(keys, 2 * MAX_JITTER_TRIES).reshape(-1, MAX_JITTER_TRIES, 2)
    which = (u[..., 0] * systems.number[:, None]).long()  # [B, tries]
    factor = 0.8 + 0.3 * u[..., 1]
    largest = torch.linalg.matrix_norm(systems.maps[..., :2], ord=2)  # [B, N]
    allowed = factor * largest.gather(1, which) <= 1
    first = allowed.int().argmax(1, keepdim=True)  # [B, 1]: the first that is allowed, or the first of all
    chosen = torch.where(allowed.any(1, keepdim=True), factor.gather(1, first), 1.0)
    scale = torch.ones_like(largest).scatter(1, which.gather(1, first), chosen)
    return systems._replace(maps=systems.maps * scale[..., None, None])
