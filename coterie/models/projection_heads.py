"""Build the small networks that self-supervised learning puts behind an encoder, and discards afterwards.

Legend: D features of the encoder, P outputs that are compared, H hidden units.
"""

from __future__ import annotations

from torch import nn


def projector(width: int, projection: int) -> nn.Module:
    """Return SimSiam's projector, D -> D -> D -> P.

    BatchNorm follows each layer, and ReLU the first two; the last BatchNorm has neither weight nor bias. No linear
    layer has a bias, since BatchNorm would remove it.

    Chen, He: Exploring Simple Siamese Representation Learning, CVPR 2021, section 3.
    """
    return nn.Sequential(
        nn.Linear(width, width, bias=False),
        nn.BatchNorm1d(width),
        nn.ReLU(),
        nn.Linear(width, width, bias=False),
        nn.BatchNorm1d(width),
        nn.ReLU(),
        nn.Linear(width, projection, bias=False),
        nn.BatchNorm1d(projection, affine=False),
    )


def predictor(projection: int, hidden: int) -> nn.Module:
    """Return SimSiam's predictor, P -> H -> P, with BatchNorm and ReLU in between.

    Chen, He: Exploring Simple Siamese Representation Learning, CVPR 2021, section 3.
    """
    return nn.Sequential(
        nn.Linear(projection, hidden, bias=False),
        nn.BatchNorm1d(hidden),
        nn.ReLU(),
        nn.Linear(hidden, projection),
    )


def mlp_head(width: int, projection: int) -> nn.Module:
    """Return MoCo v2's projector, D -> D -> P, with ReLU in between.

    Chen, Fan, Girshick, He: Improved Baselines with Momentum Contrastive Learning, arXiv 2003.04297.
    """
    return nn.Sequential(nn.Linear(width, width), nn.ReLU(), nn.Linear(width, projection))
