"""Compose pairs of images that show the same fractals, from which an encoder learns.

A pair has an own system, number i, and partners, which are other systems in the cache of renderings:

    for each of two views, on a black canvas of side n, for each of its systems in turn:
        pick one of its renderings in the cache                                   # each view may have another
        transpose it, flip it upside down, mirror it, each with probability 1/2   # `flip`
        colour it                                                                 # `paint`
        resize it to a side of int(f n), f ~ U(0.45, 0.75)
        put it at integers x, y of [-(side // 4), n - (side - side // 4)), over what is there, where it is not black
    blur with probability 1/2: 3 x 3, deviation U(0.5, 2)
    and change it as any image, see `coterie.objectives.views`

Pixels are bytes until the canvas is complete, as in OpenCV. The own systems come in a random order, pass after pass;
only the last renderings are stored (`coterie.pretrain.rendering_cache`).

Departures from the authors' code: the systems of one pass come in one shuffled order, where the authors shuffle ten
passes together; a resized object is not averaged over the pixels it loses; a whole batch is composed at once, after its
new renderings are in the cache.

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

MIN_SYSTEMS = 2
"""Of a pair."""


class PairSystems(NamedTuple):
    """The systems of a batch of pairs, as slots of the cache: [B, K], and whether each is shown."""

    slots: Tensor
    shown: Tensor


@dataclass(frozen=True)
class Canvas:
    """The canvas on which a view is composed.

    Attributes:
        size: n.
        max_objects: K, the most systems of a pair; it has a random number, 2 to K.
    """

    size: int
    max_objects: int


def choose_systems(canvas: Canvas, own: Tensor, num_systems: int, key: Tensor) -> PairSystems:
    """Choose the systems of each pair: its own, in the slot `own` [B], and different partners from the cache."""
    luck = uniform(fold(key, 0), [len(own), num_systems]).scatter(1, own[:, None], -1.0)  # the own system comes last
    partners = luck.topk(min(canvas.max_objects, num_systems) - 1, dim=1).indices
    number = MIN_SYSTEMS + (uniform(fold(key, 1), [len(own)]) * (canvas.max_objects - MIN_SYSTEMS + 1)).long()
    slots = torch.cat([own[:, None], partners], 1)
    return PairSystems(slots, torch.arange(slots.shape[1]) < number[:, None])


def compose(canvas: Canvas, renderings: Tensor, shown: Tensor, key: Tensor) -> Tensor:
    """Compose one view of each pair, [B, 3, n, n] from 0 to 1.

    Args:
        canvas: what they are put on.
        renderings: in grey, [B, K, s, s].
        shown: which of them are put there, [B, K].
        key: [].
    """
    view = torch.zeros(len(renderings), 3, canvas.size, canvas.size)
    for k in range(renderings.shape[1]):
        here = fold(key, k + 1)
        each = place(paint(flip(renderings[:, k], fold(here, 0)), fold(here, 1)), canvas.size, fold(here, 2))
        covers = (each > 0).any(1, keepdim=True) & shown[:, k, None, None, None]
        view = torch.where(covers, each, view)
    return blur(view / 255, fold(key, 0), radius=1, min_deviation=0.5)


def flip(grey: Tensor, key: Tensor) -> Tensor:
    """Transpose, flip upside down and mirror each picture of [B, s, s], each at random."""
    coins = uniform(key, [3, len(grey), 1, 1]) < 0.5
    grey = torch.where(coins[0], grey.transpose(1, 2), grey)
    grey = torch.where(coins[1], grey.flip(1), grey)
    return torch.where(coins[2], grey.flip(2), grey)


def paint(grey: Tensor, key: Tensor) -> Tensor:
    """Colour pictures in grey [B, s, s] at random, as bytes [B, 3, s, s]; black stays black.

    hue = uint8(255 grey + U(0, 255)), saturation = uint8(255 U(0.3, 1)), value = uint8(255 U(0.5, 1)); then as OpenCV
    reads them, where a hue of 180 is the whole circle, so that 0 ... 255 is more than one turn.
    """
    u = uniform(key, [3, len(grey), 1, 1])
    hue = (255 * grey + 255 * u[0]).floor() % 256
    saturation, value = (255 * (0.3 + 0.7 * u[1])).floor(), (255 * (0.5 + 0.5 * u[2])).floor()
    colours = hue_to_rgb(hue[:, None] / 30, value[:, None], (value * saturation / 255)[:, None])
    return torch.where(grey[:, None] > 0, colours.round(), 0.0)


def place(x: Tensor, size: int, key: Tensor) -> Tensor:
    """Resize pictures, bytes [B, C, s, s], at random and put them somewhere on black canvases [B, C, n, n]."""
    u = uniform(key, [3, len(x)])
    side = (size * (0.45 + 0.3 * u[0])).floor()
    out = (side / 4).floor()  # this many pixels may lie beyond an edge
    corner = ((size - side + 2 * out) * u[1:]).floor() - out  # [2, B]
    rows, columns = (_placement_weights(at, side, x.shape[2], size) for at in corner)
    return resample(x, rows, columns).round()


def _placement_weights(corner: Tensor, side: Tensor, before: int, after: int) -> Tensor:
    """Return weights [B, n, s] that resize s pixels to `side` [B] and put them at `corner` [B]; zero elsewhere."""
    pixel = torch.arange(after) - corner[:, None]  # [B, n], from the object's own corner
    point = ((pixel + 0.5) * (before / side)[:, None] - 0.5).clamp(0, before - 1)
    inside = (pixel >= 0) & (pixel < side[:, None])
    return interpolation_weights(point, before) * inside[..., None]
