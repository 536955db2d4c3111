"""Two sets made from scikit-learn's handwritten digits, and a model of pixels, for files beside this one.

`digit_pairs` has two digits in each picture, and ten labels that say which are there. `digit_pixels` has noisy pictures
with two digits, and a class for each pixel: nothing, ink of an even digit, ink of an odd one.

Legend: N pictures, H x W pixels, C classes.
"""

import numpy as np
import torch
from sklearn.datasets import load_digits
from torch import nn

from coterie.core.examples import Examples
from coterie.data import Source

SIDE, SHADES, INK = 8, 16, 0.3
DIGITS = 10


def digit_pairs(pictures: int = 1200) -> Source:
    """Two digits side by side, x [N, 1, 8, 16], and which of the ten are there, y [N, 10] of 0 and 1."""
    images, digits = _draw_pairs(pictures)
    x = np.concatenate([images[:, 0], images[:, 1]], axis=2)[:, None]
    y = np.zeros((pictures, DIGITS), dtype=np.int64)
    y[np.arange(pictures)[:, None], digits] = 1
    return _split("digit_pairs", x, y, None)


def digit_pixels(pictures: int = 600, noise: float = 0.2) -> Source:
    """Noisy pictures of two digits, x [N, 1, 16, 16], and each pixel's class, y [N, 16, 16] from 0 to 2."""
    images, digits = _draw_pairs(pictures)
    draw = np.random.default_rng(1)
    x = np.zeros((pictures, 2 * SIDE, 2 * SIDE), dtype=np.float32)
    y = np.zeros((pictures, 2 * SIDE, 2 * SIDE), dtype=np.int64)
    for k in range(pictures):
        for half in range(2):
            top, left = draw.integers(SIDE + 1), half * SIDE
            place = (k, slice(top, top + SIDE), slice(left, left + SIDE))
            x[place] = images[k, half]
            y[place] = (images[k, half] > INK) * (1 + digits[k, half] % 2)
    x += draw.normal(0, noise, x.shape).astype(np.float32)
    return _split("digit_pixels", x[:, None], y, 3)


def pixel_cnn(num_classes: int, width: int = 24) -> nn.Module:
    """A model of each pixel from the 13 x 13 pixels around it: [B, 1, H, W] to scores [B, C, H, W]."""
    layers: list[nn.Module] = []
    for channels in (1, width, width):
        layers += [nn.Conv2d(channels, width, 5, padding=2), nn.ReLU()]
    return nn.Sequential(*layers, nn.Conv2d(width, num_classes, 1))


def _draw_pairs(pictures: int) -> tuple[np.ndarray, np.ndarray]:
    """Return two digits for each picture: images [N, 2, 8, 8] from 0 to 1, and what they are [N, 2]."""
    held = load_digits()
    rows = np.random.default_rng(0).integers(len(held.target), size=(pictures, 2))
    return (held.images[rows] / SHADES).astype(np.float32), held.target[rows]


def _split(name: str, x: np.ndarray, y: np.ndarray, num_classes: int | None) -> Source:
    """Return a source whose last sixth is the test set."""
    x, y, first = torch.from_numpy(x), torch.from_numpy(y), len(x) - len(x) // 6
    return Source(name, Examples(x[:first], y[:first]), Examples(x[first:], y[first:]), num_classes)
