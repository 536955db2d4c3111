"""Augmentations of images, by name."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

from coterie.core.registry import Registry

if TYPE_CHECKING:
    from torch import Tensor

Augment = Callable[["Tensor", "Tensor"], "Tensor"]
"""(x [B, C, H, W], key int64 []) -> x [B, C, H, W]"""

AUGMENTATIONS = Registry(
    "augment",
    {
        "none": "coterie.data.crop_and_flip:no_augmentation",
        "crop": "coterie.data.crop_and_flip:crop",
        "flip": "coterie.data.crop_and_flip:flip",
        "crop_flip": "coterie.data.crop_and_flip:crop_flip",
    },
)
"""Every augmentation by the name that `augmentation` takes."""


def augmentation(name: str) -> Augment:
    """Return the augmentation called `name`.

    Raises:
        Mistake: there is none.
    """
    return AUGMENTATIONS.find(name)
