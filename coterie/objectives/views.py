"""Two views of an example: what a self-supervised loss compares.

Images [B, C, H, W] from 0 to 1 are, in this order,

    cut       a piece of 0.2 to 1 of the area, 3/4 to 4/3 as wide as high, resized to the whole
    coloured  with probability 0.8: brightness, contrast and saturation by factors of U(0.6, 1.4), hue by U(-0.1, 0.1)
    greyed    with probability 0.2
    blurred   with probability 0.5: 5 x 5, a deviation of U(0.1, 2)
    mirrored  with probability 0.5

and of anything else each number is set to 0, the mean of a standardised column, with probability 0.3.

All of it is drawn from the key, image by image, and nothing branches on a value, so it is the same in a plain loop,
under `torch.func.vmap`, in a compiled step, and whatever the batch is padded to. Images of another number of channels
than three have no colour: only brightness and contrast change.

Ours: the four changes of colour come in one order, and nothing is rounded in between. torchvision, which the authors
used, shuffles them for each image and rounds to bytes; the first three commute, but for what is cut off at 0 and 1.
That features are set to zero is ours too.

Chen, He: Exploring Simple Siamese Representation Learning, CVPR 2021, section 3, for the changes and their strengths.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor

from coterie.core.errors import Mistake
from coterie.core.rng import fold, uniform
from coterie.objectives.resampling import blurring, resampled, stretching

LUMA = (0.299, 0.587, 0.114)
ATTEMPTS = 10
"""How many pieces are drawn until one lies within the image; if none does, it is the whole."""
DROPPED = 0.3


def two_views(x: Tensor, key: Tensor) -> tuple[Tensor, Tensor]:
    """Two views of each example of x [B, ...], of the same shape.

    Raises:
        Mistake: the examples are no numbers, but tokens.
    """
    if not x.is_floating_point():
        raise Mistake("self-supervised learning changes what it looks at, which tokens do not allow; choose other data")
    change = image_view if x.dim() == 4 else feature_view
    return change(x, fold(key, 1)), change(x, fold(key, 2))


def feature_view(x: Tensor, key: Tensor) -> Tensor:
    """x [B, ...] with some of its numbers set to 0."""
    return x * (uniform(key, x.shape) >= DROPPED).to(x.dtype)


def image_view(x: Tensor, key: Tensor) -> Tensor:
    """One view of each image of x [B, C, H, W]."""
    return mirrored(
        blurred(greyed(coloured(cut(x, fold(key, 0)), fold(key, 1)), fold(key, 2)), fold(key, 3)), fold(key, 4)
    )


def cut(x: Tensor, key: Tensor, least: float = 0.2, most: float = 1.0) -> Tensor:
    """A piece of each image of x [B, C, H, W], `least` to `most` of its area, resized to [B, C, H, W]."""
    height, width = x.shape[2:]
    u = _uniform(x, key, ATTEMPTS, 2)
    area = height * width * (least + (most - least) * u[..., 0])
    ratio = torch.exp(math.log(3 / 4) + math.log(16 / 9) * u[..., 1])  # width over height, as likely as its inverse
    tall, wide = (area / ratio).sqrt().round().clamp(min=1), (area * ratio).sqrt().round().clamp(min=1)
    fits = (tall <= height) & (wide <= width)  # [B, attempts]
    first, some = fits.int().argmax(1, keepdim=True), fits.any(1)
    tall = torch.where(some, tall.gather(1, first)[:, 0], float(height))
    wide = torch.where(some, wide.gather(1, first)[:, 0], float(width))
    corner = _uniform(x, fold(key, 1), 2)
    top, left = ((height - tall + 1) * corner[:, 0]).floor(), ((width - wide + 1) * corner[:, 1]).floor()
    return resampled(x, stretching(top, tall, height, height), stretching(left, wide, width, width))


def coloured(x: Tensor, key: Tensor) -> Tensor:
    """Most images of x [B, C, H, W] with other brightness, contrast, saturation and hue."""
    u = _uniform(x, key, 5)[..., None, None, None]  # [B, 5, 1, 1, 1]
    factor = 0.6 + 0.8 * u[:, :3]
    y = (x * factor[:, 0]).clamp(0, 1)
    y = _between(luma(y).mean((2, 3), keepdim=True), y, factor[:, 1])
    if x.shape[1] == 3:
        y = _between(luma(y), y, factor[:, 2])
        y = turned(y, 0.2 * u[:, 3] - 0.1)
    return torch.where(u[:, 4] < 0.8, y, x)


def greyed(x: Tensor, key: Tensor) -> Tensor:
    """Some images of x [B, C, H, W] without colour."""
    return torch.where(_uniform(x, key, 1)[:, :, None, None] < 0.2, luma(x).expand_as(x), x)


def blurred(x: Tensor, key: Tensor, radius: int = 2, least: float = 0.1, most: float = 2.0) -> Tensor:
    """Half of the images of x [B, C, H, W] under a Gaussian with a deviation of `least` to `most` pixels."""
    u = _uniform(x, key, 2)
    deviation = torch.where(u[:, 0] < 0.5, least + (most - least) * u[:, 1], 0.0)
    return resampled(x, *(blurring(deviation, radius, side) for side in x.shape[2:]))


def mirrored(x: Tensor, key: Tensor) -> Tensor:
    """Half of the images of x [B, C, H, W] with left and right exchanged."""
    return torch.where(_uniform(x, key, 1)[:, :, None, None] < 0.5, x.flip(3), x)


def luma(x: Tensor) -> Tensor:
    """The brightness that eyes see [B, 1, H, W]; the mean where there are not three channels."""
    if x.shape[1] != 3:
        return x.mean(1, keepdim=True)
    red, green, blue = (x[:, c, None] for c in range(3))
    return LUMA[0] * red + LUMA[1] * green + LUMA[2] * blue


def turned(x: Tensor, by: Tensor) -> Tensor:
    """The hues of x [B, 3, H, W] turned by parts of the circle `by`, [B, 1, 1, 1]."""
    value, least = x.amax(1, keepdim=True), x.amin(1, keepdim=True)
    chroma = value - least
    red, green, blue = (x[:, c, None] for c in range(3))
    safe = torch.where(chroma > 0, chroma, 1.0)
    hue = torch.where(
        value == red,
        (green - blue) / safe,
        torch.where(value == green, 2 + (blue - red) / safe, 4 + (red - green) / safe),
    )
    return from_hue(hue + 6 * by, value, chroma)


def from_hue(hue: Tensor, value: Tensor, chroma: Tensor) -> Tensor:
    """Colours [B, 3, H, W] of a hue in sixths of the circle, a value and a chroma, [B, 1, H, W] each.

    Red is the value less chroma times how far the hue is from red, cut to 0 ... 1; so are green and blue, turned by two
    and four sixths.
    """
    turn = (hue + torch.tensor([5.0, 3.0, 1.0], dtype=hue.dtype, device=hue.device).reshape(1, 3, 1, 1)) % 6
    return value - chroma * torch.minimum(turn, 4 - turn).clamp(0, 1)


def _between(low: Tensor, high: Tensor, factor: Tensor) -> Tensor:
    return (low + (high - low) * factor).clamp(0, 1)


def _uniform(x: Tensor, key: Tensor, *shape: int) -> Tensor:
    """Numbers in [0, 1) of x's type, [B, *shape]."""
    return uniform(key, [x.shape[0], *shape]).to(x.dtype)
