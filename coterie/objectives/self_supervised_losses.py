"""Measure how alike an encoder's outputs for two views of an example are, and whether all outputs are alike.

Legend: B batch, P numbers of a projection, Q keys of a queue.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor
from torch.nn import functional as F


def simsiam(p1: Tensor, z1: Tensor, p2: Tensor, z2: Tensor) -> Tensor:
    """Return SimSiam's loss of each example [B]: -1/2 (cos(p1, sg(z2)) + cos(p2, sg(z1))), from -1 to 1.

    sg stops the gradient. Without it, all outputs would become alike.

    Args:
        p1, p2: the predictor's outputs for the two views, [B, P].
        z1, z2: the projector's outputs for the two views, [B, P].

    Chen, He: Exploring Simple Siamese Representation Learning, CVPR 2021, equations 1 to 4.
    """
    return -(F.cosine_similarity(p1, z2.detach(), dim=-1) + F.cosine_similarity(p2, z1.detach(), dim=-1)) / 2


def info_nce(query: Tensor, key: Tensor, queue: Tensor, temperature: float) -> Tensor:
    """Return MoCo's loss of each example [B]: -log(exp(q.k / T) / (exp(q.k / T) + sum_j exp(q.queue_j / T))).

    Args:
        query: the first view's outputs, of norm 1, [B, P].
        key: the second view's outputs, of norm 1 and constant, [B, P].
        queue: the keys of other examples, of norm 1 and constant, [Q, P].
        temperature: T.

    He, Fan, Wu, Xie, Girshick: Momentum Contrast for Unsupervised Visual Representation Learning, CVPR 2020, equation
    1.
    """
    right = (query * key.detach()).sum(-1, keepdim=True)
    logits = torch.cat([right, query @ queue.detach().T], -1) / temperature  # [B, 1 + Q]
    return -F.log_softmax(logits, dim=-1)[:, 0]


def spread(z: Tensor, mask: Tensor | None = None) -> Tensor:
    """Return how far the directions of the real rows of z [B, P] are spread, []: from 0, all alike, to about 1.

    It is the standard deviation of z / |z|, its mean over the P numbers, as a share of 1 / sqrt(P), the value of
    directions that are spread evenly. 0 is the collapse that self-supervised learning has to be watched for.

    Chen, He: Exploring Simple Siamese Representation Learning, CVPR 2021, section 4.1.
    """
    unit = F.normalize(z.detach(), dim=-1)
    keep = torch.ones_like(unit[:, :1]) if mask is None else mask.to(unit.dtype)[:, None]
    count = keep.sum().clamp(min=1)
    mean = (unit * keep).sum(0) / count
    variance = ((unit - mean) ** 2 * keep).sum(0) / count
    return variance.sqrt().mean() * math.sqrt(z.shape[1])


def enqueue(queue: Tensor, place: Tensor, keys: Tensor, mask: Tensor | None = None) -> tuple[Tensor, Tensor]:
    """Return the queue [Q, P] with its oldest keys replaced by the real rows of `keys` [B, P], and the next place [].

    The new keys stand from `place` [] on. B is at most Q.
    """
    real = torch.ones_like(keys[:, 0], dtype=torch.int64) if mask is None else mask.to(torch.int64)
    size = len(queue)
    where = torch.where(real > 0, (place + real.cumsum(0) - 1) % size, size)  # rows that are not real go past the end
    longer = torch.cat([queue, queue[:1]])
    after = longer.scatter(0, where[:, None].expand_as(keys), keys.to(queue.dtype))[:size]
    return after, (place + real.sum()) % size
