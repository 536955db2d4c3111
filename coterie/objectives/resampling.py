"""Images resized, cropped and blurred as products of matrices: whatever is linear and treats rows and columns apart is
rows @ image @ columns', with a matrix of weights for each image. So each image of a batch may have another crop and
another blur, in a loop and under `torch.func.vmap` alike.

Legend: B images, C channels, n pixels of a side before, m after.
"""

from __future__ import annotations

import torch
from torch import Tensor


def resampled(x: Tensor, rows: Tensor, columns: Tensor) -> Tensor:
    """x [B, C, n, n'] under weights of rows [B, m, n] and of columns [B, m', n'], as [B, C, m, m']."""
    batch, channels, height, width = x.shape
    tall = rows @ x.transpose(1, 2).reshape(batch, height, channels * width)  # one product for all channels
    wide = tall.reshape(batch, -1, width) @ columns.transpose(1, 2)
    return wide.reshape(batch, rows.shape[1], channels, -1).transpose(1, 2)


def stretching(start: Tensor, length: Tensor, before: int, after: int) -> Tensor:
    """Weights [B, m, n] that take the pixels from `start` [B] on, `length` [B] of them, and resize them to m = `after`.

    Bilinear, pixels being squares (the centre of the first is at 1/2), what lies beyond the edge being like the edge:
    as PIL and OpenCV do to make an image larger. To make it smaller, no average is taken, as in OpenCV.
    """
    pixel = torch.arange(after, device=start.device) + 0.5
    place = (pixel * (length / after)[:, None] - 0.5).clamp(min=0)  # [B, m], from the start of what is taken
    return tents(torch.minimum(place, length[:, None] - 1) + start[:, None], before)


def tents(place: Tensor, before: int) -> Tensor:
    """Weights of linear interpolation at `place` [...] among `before` pixels, [..., n]."""
    distance = (place[..., None] - torch.arange(before, device=place.device)).abs()
    return (1 - distance).clamp(min=0)


def blurring(deviation: Tensor, radius: int, size: int) -> Tensor:
    """Weights [B, n, n] of a Gaussian of `deviation` [B] over 2 radius + 1 pixels; images go on as in a mirror, whose
    last row is not repeated. A deviation of 0 leaves an image as it is.
    """
    offset = torch.arange(-radius, radius + 1, device=deviation.device)
    spread = deviation.clamp(min=1e-6)[:, None]
    taps = torch.exp(-0.5 * (offset / spread) ** 2)  # [B, 2 radius + 1]
    taps = taps / taps.sum(1, keepdim=True)
    place = torch.arange(size, device=deviation.device)[:, None] + offset  # [n, taps]
    mirrored = (size - 1 - (size - 1 - place.abs()).abs()).clamp(0, size - 1)
    chosen = (mirrored[..., None] == torch.arange(size, device=deviation.device)).to(taps.dtype)  # [n, taps, n]
    return torch.einsum("bt,itj->bij", taps, chosen)
