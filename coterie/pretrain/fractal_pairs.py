"""Pairs of images that show the same fractals: what an encoder learns from.

One pair, whose own system is number i and whose partners are other systems of which there are renderings:

    for each of two views, on a black canvas of side n, for each of its systems in turn:
        a rendering of it, drawn from those kept                                  # the views may have different ones
        transposed, turned upside down, mirrored, each with probability 1/2
        coloured, see `paint`
        resized to a side of int(f n), f ~ U(0.45, 0.75)
        put at integers x, y of [-(side // 4), n - (side - side // 4)), over what is there, where it is not black
    blurred with probability 1/2: 3 x 3, deviation U(0.5, 2)
    and changed as any image is, see `coterie.objectives.views`

Pixels are bytes until the canvas is complete, as in OpenCV. The systems are gone through in a random order, again and
again; nothing is stored but the last renderings (`coterie.pretrain.rendering_cache`).

Ours: the systems of one pass come in one shuffled order, where the authors shuffle ten passes together; a resized
object is not averaged over the pixels it loses; a whole batch is made at once, after its new renderings are in the
cache.

Legend: B pairs of a batch, K systems of a pair at most, M systems in the cache, s pixels of a rendering's side, n of a
canvas's.

Chen, Tu, Li, Shen, Chao: On the Importance and Applicability of Pre-Training for Federated Learning, ICLR 2023, from
their code.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple

import torch
from torch import Tensor

from coterie.core.rng import fold, uniform
from coterie.objectives.resampling import interpolation_weights, resample
from coterie.objectives.views import blur, hue_to_rgb

FEWEST = 2
"""Systems of a pair at least."""


class Drawn(NamedTuple):
    """Which systems a batch of pairs shows, as places in the cache: [B, K], and whether each is there."""

    slots: Tensor
    shown: Tensor


@dataclass(frozen=True)
class Canvas:
    """What a view is put on.

    Attributes:
        size: n.
        objects: K, the most systems of a pair; it has 2 to K, as many as chance says.
    """

    size: int
    objects: int


def partners(canvas: Canvas, own: Tensor, held: int, key: Tensor) -> Drawn:
    """The pairs' own systems, at `own` [B] in the cache, and others among the `held` that are there, none twice."""
    luck = uniform(fold(key, 0), [len(own), held]).scatter(1, own[:, None], -1.0)  # oneself comes last
    others = luck.topk(min(canvas.objects, held) - 1, dim=1).indices
    number = FEWEST + (uniform(fold(key, 1), [len(own)]) * (canvas.objects - FEWEST + 1)).long()
    slots = torch.cat([own[:, None], others], 1)
    return Drawn(slots, torch.arange(slots.shape[1]) < number[:, None])


def compose(canvas: Canvas, renderings: Tensor, shown: Tensor, key: Tensor) -> Tensor:
    """One view of each pair, [B, 3, n, n] from 0 to 1.

    Args:
        canvas: what they are put on.
        renderings: in grey, [B, K, s, s].
        shown: which of them are there, [B, K].
        key: [].
    """
    view = torch.zeros(len(renderings), 3, canvas.size, canvas.size)
    for k in range(renderings.shape[1]):
        here = fold(key, k + 1)
        each = placed(paint(flipped(renderings[:, k], fold(here, 0)), fold(here, 1)), canvas.size, fold(here, 2))
        covers = (each > 0).any(1, keepdim=True) & shown[:, k, None, None, None]
        view = torch.where(covers, each, view)
    return blur(view / 255, fold(key, 0), radius=1, min_deviation=0.5)


def flipped(grey: Tensor, key: Tensor) -> Tensor:
    """Each of [B, s, s] transposed, turned upside down and mirrored, or not."""
    coins = uniform(key, [3, len(grey), 1, 1]) < 0.5
    grey = torch.where(coins[0], grey.transpose(1, 2), grey)
    grey = torch.where(coins[1], grey.flip(1), grey)
    return torch.where(coins[2], grey.flip(2), grey)


def paint(grey: Tensor, key: Tensor) -> Tensor:
    """Bytes [B, 3, s, s] of pictures in grey [B, s, s], black where these are.

    hue = uint8(255 grey + U(0, 255)), saturation = uint8(255 U(0.3, 1)), value = uint8(255 U(0.5, 1)); then as OpenCV
    takes them, where a hue of 180 is the whole circle, so that 0 ... 255 goes round once and a part.
    """
    u = uniform(key, [3, len(grey), 1, 1])
    hue = (255 * grey + 255 * u[0]).floor() % 256
    saturation, value = (255 * (0.3 + 0.7 * u[1])).floor(), (255 * (0.5 + 0.5 * u[2])).floor()
    colours = hue_to_rgb(hue[:, None] / 30, value[:, None], (value * saturation / 255)[:, None])
    return torch.where(grey[:, None] > 0, colours.round(), 0.0)


def placed(x: Tensor, size: int, key: Tensor) -> Tensor:
    """Bytes [B, C, s, s] made smaller or larger and put somewhere on black canvases, [B, C, n, n]."""
    u = uniform(key, [3, len(x)])
    side = (size * (0.45 + 0.3 * u[0])).floor()
    out = (side / 4).floor()  # so many pixels may lie beyond an edge
    corner = ((size - side + 2 * out) * u[1:]).floor() - out  # [2, B]
    rows, columns = (_onto(at, side, x.shape[2], size) for at in corner)
    return resample(x, rows, columns).round()


def _onto(corner: Tensor, side: Tensor, before: int, after: int) -> Tensor:
    """Weights [B, n, s] that resize s pixels to `side` [B] and put them at `corner` [B]; zero elsewhere."""
    pixel = torch.arange(after) - corner[:, None]  # [B, n], from the object's own corner
    place = ((pixel + 0.5) * (before / side)[:, None] - 0.5).clamp(0, before - 1)
    inside = (pixel >= 0) & (pixel < side[:, None])
    return interpolation_weights(place, before) * inside[..., None]
