"""Bucketing: the step that averages shuffled updates in buckets before a rule."""

from __future__ import annotations

import torch
from torch import Tensor

from coterie.aggregation.checks import require_number, require_updates
from coterie.core import rng
from coterie.core.aggregators import Mixing
from coterie.core.errors import require
from coterie.core.kinds import Count, NonNegativeInt


def bucketing(num_byzantine: NonNegativeInt, bucket_size: Count | None = None) -> Mixing:
    """Return the step that shuffles the updates and replaces every s successive ones by their mean.

        y_b = 1 / s sum_{i = (b - 1) s + 1}^{b s} x_{pi(i)},    b = 1 ... ceil(n / s),    pi at random

    The last bucket may be smaller.

    Args:
        num_byzantine: f.
        bucket_size: s. By default the largest s with ceil(n / s) > 2 f, so that attackers are never half of the
            buckets. This is the paper's bound n / 2 f, rounded down, and one less if 2 f divides n; it is n if f = 0.

    Raises:
        Mistake: a parameter is out of range; in a round, that it has too few updates (n <= 2 f).

    Karimireddy, He, Jaggi: Byzantine-Robust Learning on Heterogeneous Datasets via Bucketing, ICLR 2022, Algorithm 1.
    """
    require_number(num_byzantine)
    right = bucket_size is None or (isinstance(bucket_size, int) and bucket_size >= 1)
    require("bucket_size", bucket_size, right, "1 or more")

    def bucket_means_matrix(gram: Tensor, key: Tensor) -> Tensor:  # [n, n] -> [m, n]
        n, f = len(gram), num_byzantine
        require_updates("bucketing", n, f)
        size = bucket_size or (-(-n // (2 * f)) - 1 if f else n)
        order = rng.bits(key, [n]).argsort(stable=True).to(gram.device)
        bucket = torch.arange(n, device=gram.device) // size
        in_bucket = torch.zeros(int(bucket[-1]) + 1, n, dtype=torch.float64, device=gram.device)
        in_bucket[bucket, order] = 1
        return in_bucket / in_bucket.sum(1, keepdim=True)

    return Mixing(bucket_means_matrix)
