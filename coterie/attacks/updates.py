"""Attacks that replace the attackers' updates.

All attackers send the same vector, except with `gaussian`. mu and sd are the mean and the standard deviation
(divided by h - 1) of the honest updates, coordinate by coordinate.

Legend: h honest and f attacking clients of a round, d numbers in a part of the update.
"""

from __future__ import annotations

import torch
from torch import Tensor

from coterie.attacks.search import find_farthest
from coterie.core import rng
from coterie.core.errors import require
from coterie.core.kinds import NonNegative, NonNegativeInt
from coterie.loop.attack import Forge, Sight


def sign_flip() -> Forge:
    """Return the attack that sends -mu, the honest updates' mean with its sign flipped.

    Li, Xu, Chen, Giannakis, Ling: RSA: Byzantine-Robust Stochastic Aggregation Methods for Distributed Learning from
    Heterogeneous Datasets, AAAI 2019; in the form of Allen-Zhu, Ebrahimianghazani, Li, Alistarh, ICLR 2021.
    """
    return lambda sight: -sight.honest.mean(0).expand_as(sight.own)


def ipm(factor: float = 2.0, line_search: bool = False) -> Forge:
    """Return the attack of inner-product manipulation: it sends -factor mu, with mu the honest updates' mean.

    The aggregate then points away from mu.

    Args:
        factor: how far.
        line_search: search for the factor that drives the server's aggregate farthest from mu instead.

    Raises:
        Mistake: a value is out of its range.

    Xie, Koyejo, Gupta: Fall of Empires: Breaking Byzantine-tolerant SGD by Inner Product Manipulation, UAI 2019.
    """
    _require_finite_factor(factor)

    def send_negated_mean(sight: Sight) -> Tensor:
        mean = sight.honest.mean(0)
        size = find_farthest(sight, lambda x: -x * mean) if line_search else factor
        return (-size * mean).expand_as(sight.own)

    return send_negated_mean


def alie(factor: float = 1.5, line_search: bool = False) -> Forge:
    """Return the attack "a little is enough": it sends mu + factor sd of the honest updates, which hides among them.

    Args:
        factor: how far, in standard deviations.
        line_search: search for the factor that drives the server's aggregate farthest from mu instead.

    Raises:
        Mistake: a value is out of its range.

    Baruch, Baruch, Goldberg: A Little Is Enough: Circumventing Defenses for Distributed Learning, NeurIPS 2019, with
    the factor given instead of derived from n and f, and added, as in ByzFL.
    """
    _require_finite_factor(factor)

    def send_shifted_mean(sight: Sight) -> Tensor:
        mean, sd = sight.honest.mean(0), _deviation(sight.honest)
        size = find_farthest(sight, lambda x: mean + x * sd) if line_search else factor
        return (mean + size * sd).expand_as(sight.own)

    return send_shifted_mean


def mimic(client: NonNegativeInt = 0) -> Forge:
    """Return the attack that copies one honest client's update, so that the others seem to be outliers.

    Args:
        client: the number of a round's honest client, from 0 in the cohort's order; the last one if there are fewer.

    Raises:
        Mistake: a value is out of its range.

    Karimireddy, He, Jaggi: Byzantine-Robust Learning on Heterogeneous Datasets via Bucketing, ICLR 2022, section 4.
    """
    require("client", client, isinstance(client, int) and client >= 0, "0 or more")
    return lambda sight: sight.honest[min(client, len(sight.honest) - 1)].expand_as(sight.own)


def large_values(size: float = 1e10) -> Forge:
    """Return the attack that sends the same large number everywhere. It is finite, so that the server accepts it.

    Args:
        size: the number; cut to the range of the update's type.

    Raises:
        Mistake: a value is out of its range.
    """
    require("size", size, 0 < abs(size) < float("inf"), "a finite number other than 0")

    def send_large_number(sight: Sight) -> Tensor:
        limit = torch.finfo(sight.own.dtype).max
        return torch.full_like(sight.own, max(-limit, min(size, limit)))

    return send_large_number


def gaussian(sd: NonNegative = 1.0, mean: float = 0.0) -> Forge:
    """Return the attack that sends normal noise, different for each attacker.

    Args:
        sd, mean: of every coordinate.

    Raises:
        Mistake: a value is out of its range.
    """
    require("sd", sd, 0 <= sd < float("inf"), "0 or more")
    require("mean", mean, abs(mean) < float("inf"), "a finite number")
    return lambda sight: mean + sd * _normal(sight.key, sight.own)


def _require_finite_factor(factor: float) -> None:
    require("factor", factor, abs(factor) < float("inf"), "a finite number")


def _deviation(honest: Tensor) -> Tensor:
    """Return the standard deviation [d] of honest updates [h, d]; 0 for a single one."""
    return honest.std(0) if len(honest) > 1 else torch.zeros_like(honest[0])


def _normal(key: Tensor, like: Tensor) -> Tensor:
    """Return standard normal numbers of the shape of `like` by Box and Muller, which depend on the key alone."""
    radius, angle = (rng.uniform(rng.fold(key, k), like.shape).to(like) for k in (0, 1))
    return torch.sqrt(-2 * torch.log(1 - radius)) * torch.cos(2 * torch.pi * angle)
