"""Make two views of each example, which a self-supervised loss compares.

Images [B, C, H, W] from 0 to 1 are changed in this order:

    crop            take a piece of 0.2 to 1 of the area, 3/4 to 4/3 as wide as high, and resize it to the whole
    jitter_colours  with probability 0.8: brightness, contrast and saturation by factors of U(0.6, 1.4), hue by
                    U(-0.1, 0.1)
    remove_colours  with probability 0.2
    blur            with probability 0.5: 5 x 5 pixels, a deviation of U(0.1, 2)
    mirror          with probability 0.5

In other examples each number is set to 0, the mean of a standardised column, with probability 0.3.

All changes are drawn from the key, image by image, and nothing branches on a value. So they are the same in a plain
loop, under `torch.func.vmap`, in a compiled step, and under any padding of the batch. Images that do not have three
channels have no colour: only brightness and contrast change.

Departures from the paper: the four changes of colour come in one order, and nothing is rounded in between.
torchvision, which the authors used, shuffles them for each image and rounds to bytes. The first three commute, except
for what is cut off at 0 and 1. Setting features to zero is ours too.

Chen, He: Exploring Simple Siamese Representation Learning, CVPR 2021, section 3, for the changes and their strengths.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor

from coterie.core.errors import Mistake
from coterie.core.rng import fold, uniform
from coterie.objectives.resampling import blur_weights, resample, resize_weights

LUMA_WEIGHTS = (0.299, 0.587, 0.114)
"""Of red, green and blue."""
MAX_CROP_ATTEMPTS = 10
"""How many pieces are drawn until one lies within the image; if none does, the piece is the whole image."""
ZERO_PROBABILITY = 0.3
"""With which a number is set to 0 in examples that are not images."""


def two_views(x: Tensor, key: Tensor) -> tuple[Tensor, Tensor]:
    """Return two views of each example of x [B, ...], of the same shape.

    Raises:
        Mistake: the examples are tokens.
    """
    if not x.is_floating_point():
        raise Mistake("self-supervised learning changes its examples, and tokens cannot be changed; choose other data")
    change = image_view if x.dim() == 4 else feature_view
    return change(x, fold(key, 1)), change(x, fold(key, 2))


def feature_view(x: Tensor, key: Tensor) -> Tensor:
    """Return x [B, ...] with some of its numbers set to 0."""
    return x * (uniform(key, x.shape) >= ZERO_PROBABILITY).to(x.dtype)


def image_view(x: Tensor, key: Tensor) -> Tensor:
    """Return one view of each image of x [B, C, H, W]."""
    for k, change in enumerate((crop, jitter_colours, remove_colours, blur, mirror)):
        x = change(x, fold(key, k))
    return x


def crop(x: Tensor, key: Tensor, min_area: float = 0.2, max_area: float = 1.0) -> Tensor:
    """Take a piece of each image of x [B, C, H, W], of a random share of its area, and resize it to [B, C, H, W]."""
    height, width = x.shape[2:]
    u = _uniform(x, key, MAX_CROP_ATTEMPTS, 2)
    area = height * width * (min_area + (max_area - min_area) * u[..., 0])
    ratio = torch.exp(math.log(3 / 4) + math.log(16 / 9) * u[..., 1])  # width over height, as likely as its inverse
    tall, wide = (area / ratio).sqrt().round().clamp(min=1), (area * ratio).sqrt().round().clamp(min=1)
    fits = (tall <= height) & (wide <= width)  # [B, attempts]
    first, some = fits.int().argmax(1, keepdim=True), fits.any(1)
    tall = torch.where(some, tall.gather(1, first)[:, 0], float(height))
    wide = torch.where(some, wide.gather(1, first)[:, 0], float(width))
    corner = _uniform(x, fold(key, 1), 2)
    top, left = ((height - tall + 1) * corner[:, 0]).floor(), ((width - wide + 1) * corner[:, 1]).floor()
    return resample(x, resize_weights(top, tall, height, height), resize_weights(left, wide, width, width))


def jitter_colours(x: Tensor, key: Tensor) -> Tensor:
    """Change brightness, contrast, saturation and hue of most images of x [B, C, H, W]."""
    u = _uniform(x, key, 5)[..., None, None, None]  # [B, 5, 1, 1, 1]
    factor = 0.6 + 0.8 * u[:, :3]
    y = (x * factor[:, 0]).clamp(0, 1)
    y = _blend(luma(y).mean((2, 3), keepdim=True), y, factor[:, 1])
    if x.shape[1] == 3:
        y = _blend(luma(y), y, factor[:, 2])
        y = rotate_hue(y, 0.2 * u[:, 3] - 0.1)
    return torch.where(u[:, 4] < 0.8, y, x)


def remove_colours(x: Tensor, key: Tensor) -> Tensor:
    """Turn some images of x [B, C, H, W] grey."""
    return torch.where(_uniform(x, key, 1)[:, :, None, None] < 0.2, luma(x).expand_as(x), x)


def blur(x: Tensor, key: Tensor, radius: int = 2, min_deviation: float = 0.1, max_deviation: float = 2.0) -> Tensor:
    """Blur half of the images of x [B, C, H, W] by a Gaussian with a random deviation, in pixels."""
    u = _uniform(x, key, 2)
    deviation = torch.where(u[:, 0] < 0.5, min_deviation + (max_deviation - min_deviation) * u[:, 1], 0.0)
    return resample(x, *(blur_weights(deviation, radius, side) for side in x.shape[2:]))


def mirror(x: Tensor, key: Tensor) -> Tensor:
    """Exchange left and right in half of the images of x [B, C, H, W]."""
    return torch.where(_uniform(x, key, 1)[:, :, None, None] < 0.5, x.flip(3), x)


def luma(x: Tensor) -> Tensor:
    """Return the brightness of images [B, 1, H, W] as eyes see it; the mean of the channels unless there are three."""
    if x.shape[1] != 3:
        return x.mean(1, keepdim=True)
    red, green, blue = (x[:, c, None] for c in range(3))
    return LUMA_WEIGHTS[0] * red + LUMA_WEIGHTS[1] * green + LUMA_WEIGHTS[2] * blue


def rotate_hue(x: Tensor, by: Tensor) -> Tensor:
    """Rotate the hues of x [B, 3, H, W] by a share of the circle, [B, 1, 1, 1]."""
    value, lowest = x.amax(1, keepdim=True), x.amin(1, keepdim=True)
    chroma = value - lowest
    red, green, blue = (x[:, c, None] for c in range(3))
    safe = torch.where(chroma > 0, chroma, 1.0)
    hue = torch.where(
        value == red,
        (green - blue) / safe,
        torch.where(value == green, 2 + (blue - red) / safe, 4 + (red - green) / safe),
    )
    return hue_to_rgb(hue + 6 * by, value, chroma)


def hue_to_rgb(hue: Tensor, value: Tensor, chroma: Tensor) -> Tensor:
    """Return colours [B, 3, H, W] from a hue in sixths of the circle, a value and a chroma, [B, 1, H, W] each.

    Red is the value minus chroma times the distance of the hue from red, cut to 0 ... 1; so are green and blue, rotated
    by two and four sixths.
    """
    angle = (hue + torch.tensor([5.0, 3.0, 1.0], dtype=hue.dtype, device=hue.device).reshape(1, 3, 1, 1)) % 6
    return value - chroma * torch.minimum(angle, 4 - angle).clamp(0, 1)


def _blend(low: Tensor, high: Tensor, factor: Tensor) -> Tensor:
    return (low + (high - low) * factor).clamp(0, 1)


def _uniform(x: Tensor, key: Tensor, *shape: int) -> Tensor:
    """Return random numbers in [0, 1) of x's type, [B, *shape]."""
    return uniform(key, [x.shape[0], *shape]).to(x.dtype)
