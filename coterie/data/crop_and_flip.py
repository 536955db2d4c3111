"""Augmentations of images: pure functions of a batch and a key.

What happens to image i of a batch depends on (key, i) alone. So it is the same in a plain loop, under
`torch.func.vmap`, in a compiled step, and for any padding of the batch. Legend: B batch, C channels.
"""

from __future__ import annotations

import torch
from torch import Tensor

from coterie.core.rng import fold, uniform


def no_augmentation(x: Tensor, key: Tensor) -> Tensor:
    """Return x [B, C, H, W] unchanged."""
    return x


def crop(x: Tensor, key: Tensor, padding: int = 4) -> Tensor:
    """Shift each image of x [B, C, H, W] at random by up to `padding` pixels each way, and fill with zeros.

    This equals padding all sides with zeros and cutting out an H x W piece at a uniformly random place.
    """
    batch, _, height, width = x.shape
    padded = torch.nn.functional.pad(x, [padding] * 4)  # [B, C, H + 2p, W + 2p]
    corner = (uniform(key, [batch, 2]) * (2 * padding + 1)).long()  # [B, 2], 0 ... 2p
    rows = corner[:, 0, None] + torch.arange(height, device=x.device)  # [B, H]
    columns = corner[:, 1, None] + torch.arange(width, device=x.device)  # [B, W]
    tall = padded.gather(2, rows[:, None, :, None].expand(-1, x.shape[1], -1, padded.shape[3]))  # [B, C, H, W + 2p]
    return tall.gather(3, columns[:, None, None, :].expand(-1, x.shape[1], height, -1))


def flip(x: Tensor, key: Tensor) -> Tensor:
    """Mirror each image of x [B, C, H, W] left to right with probability one half."""
    coin = uniform(key, [x.shape[0]]) < 0.5
    return torch.where(coin[:, None, None, None], x.flip(3), x)


def crop_flip(x: Tensor, key: Tensor) -> Tensor:
    """Crop each image of x [B, C, H, W] by up to 4 pixels, then flip it at random, as is usual for CIFAR."""
    return flip(crop(x, fold(key, 0)), fold(key, 1))
