"""Augmentation of images: pure functions of a batch and a key.

What happens to image i of a batch depends on (key, i) and on nothing else, so it is the same in a plain loop, under
`torch.func.vmap`, in a compiled step, and whatever the batch is padded to. Legend: B batch, C channels.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

from coterie.core.errors import Mistake
from coterie.core.rng import fold, uniform

Augment = Callable[[Tensor, Tensor], Tensor]
"""(x [B, C, H, W], key int64 []) -> x [B, C, H, W]"""


def none(x: Tensor, key: Tensor) -> Tensor:
    """x [B, C, H, W] as it is."""
    return x


def crop(x: Tensor, key: Tensor, padding: int = 4) -> Tensor:
    """Each image of x [B, C, H, W] moved by up to `padding` pixels either way, zeros moving in.

    As padding all sides with zeros and cutting an H x W piece out at a uniformly random place.
    """
    batch, _, height, width = x.shape
    padded = torch.nn.functional.pad(x, [padding] * 4)  # [B, C, H + 2p, W + 2p]
    corner = (uniform(key, [batch, 2]) * (2 * padding + 1)).long()  # [B, 2], 0 ... 2p
    rows = corner[:, 0, None] + torch.arange(height, device=x.device)  # [B, H]
    columns = corner[:, 1, None] + torch.arange(width, device=x.device)  # [B, W]
    tall = padded.gather(2, rows[:, None, :, None].expand(-1, x.shape[1], -1, padded.shape[3]))  # [B, C, H, W + 2p]
    return tall.gather(3, columns[:, None, None, :].expand(-1, x.shape[1], height, -1))


def flip(x: Tensor, key: Tensor) -> Tensor:
    """Each image of x [B, C, H, W] mirrored left to right with probability one half."""
    coin = uniform(key, [x.shape[0]]) < 0.5
    return torch.where(coin[:, None, None, None], x.flip(3), x)


def crop_flip(x: Tensor, key: Tensor) -> Tensor:
    """`crop` by 4 and `flip`, the usual for CIFAR: x [B, C, H, W]."""
    return flip(crop(x, fold(key, 0)), fold(key, 1))


AUGMENTATIONS: dict[str, Augment] = {"none": none, "crop": crop, "flip": flip, "crop_flip": crop_flip}
"""Every augmentation by the name that `data.augment` takes."""


def augmentation(name: str) -> Augment:
    """The augmentation called `name`.

    Raises:
        Mistake: there is none.
    """
    if name not in AUGMENTATIONS:
        raise Mistake(f"data.augment = {name!r}: must be one of {', '.join(AUGMENTATIONS)}")
    return AUGMENTATIONS[name]
