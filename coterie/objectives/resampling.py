"""Resize, crop and blur images by products of matrices.

A linear change that treats rows and columns apart is rows @ image @ columns', with a matrix of weights for each image.
So each image of a batch may have its own crop and blur, in a loop and under `torch.func.vmap` alike.

Legend: B images, C channels, n pixels per side before, m after.
"""

from __future__ import annotations

import torch
from torch import Tensor


def resample(x: Tensor, rows: Tensor, columns: Tensor) -> Tensor:
    """Return x [B, C, n, n'] times weights of rows [B, m, n] and of columns [B, m', n'], as [B, C, m, m']."""
    batch, channels, height, width = x.shape
    tall = rows @ x.transpose(1, 2).reshape(batch, height, channels * width)  # one product for all channels
    wide = tall.reshape(batch, -1, width) @ columns.transpose(1, 2)
    return wide.reshape(batch, rows.shape[1], channels, -1).transpose(1, 2)


def resize_weights(start: Tensor, length: Tensor, before: int, after: int) -> Tensor:
    """Return weights [B, m, n] that cut out `length` [B] pixels from `start` [B] on, and resize them to m = `after`.

    The interpolation is linear. Pixels are squares (the centre of the first is at 1/2), and beyond the edge the image
    continues like the edge, as where PIL and OpenCV enlarge an image. To reduce it, no average is taken, as in OpenCV.
    """
    pixel = torch.arange(after, device=start.device) + 0.5
    place = (pixel * (length / after)[:, None] - 0.5).clamp(min=0)  # [B, m], from `start`
    return interpolation_weights(torch.minimum(place, length[:, None] - 1) + start[:, None], before)


def interpolation_weights(place: Tensor, before: int) -> Tensor:
    """Return weights [..., n] of linear interpolation at `place` [...] among n = `before` pixels."""
    distance = (place[..., None] - torch.arange(before, device=place.device)).abs()
    return (1 - distance).clamp(min=0)


def blur_weights(deviation: Tensor, radius: int, size: int) -> Tensor:
    """Return weights [B, n, n] that blur by a Gaussian of `deviation` [B] over 2 radius + 1 pixels.

    Beyond the edge the image is mirrored, without repeating its last row. A deviation of 0 leaves it unchanged.
    """
    offset = torch.arange(-radius, radius + 1, device=deviation.device)
    spread = deviation.clamp(min=1e-6)[:, None]
    taps = torch.exp(-0.5 * (offset / spread) ** 2)  # [B, 2 radius + 1]
    taps = taps / taps.sum(1, keepdim=True)
    place = torch.arange(size, device=deviation.device)[:, None] + offset  # [n, taps]
    mirrored = (size - 1 - (size - 1 - place.abs()).abs()).clamp(0, size - 1)
    chosen = (mirrored[..., None] == torch.arange(size, device=deviation.device)).to(taps.dtype)  # [n, taps, n]
    return torch.einsum("bt,itj->bij", taps, chosen)
