"""The source rotated_mnist: each client sees MNIST's digits at an angle of its own."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import cast

import numpy as np
import torch
from torch import Tensor

from coterie.core.errors import Mistake
from coterie.core.examples import Examples
from coterie.core.kinds import Count
from coterie.core.rng import number
from coterie.core.toml_text import toml_text
from coterie.data.argument_checks import require_count
from coterie.data.numpy_arrays import scale_pixels
from coterie.data.source import Source
from coterie.data.sources.idx import Pixels
from coterie.data.sources.mnist import read_mnist


def rotated_mnist(angles: Sequence[float], examples_per_client: Count | None = None, rng_seed: int = 0) -> Source:
    """Load MNIST, deal it evenly to `angles`, and turn each client's images by its angle.

    The client of 15 degrees is called "15". The 10,000 test images are dealt and turned in the same way, independently
    of `rng_seed`.

    Args:
        angles: degrees, counter-clockwise, all different; each is one client.
        examples_per_client: turn at most this many training images for each client; all by default.
        rng_seed: decides which training images each client gets.

    Raises:
        Mistake: the angles cannot be used, or MNIST's files cannot.

    Reference: Ghifary, Kleijn, Zhang, Balduzzi 2015 (there 0 to 75 degrees in steps of 15).
    """
    turns = parse_angles(angles)
    most = None if examples_per_client is None else require_count("examples_per_client", examples_per_client)
    train, groups = _deal_and_turn(*read_mnist("train"), turns, _generator(int(rng_seed)), most)
    test, test_groups = _deal_and_turn(*read_mnist("t10k"), turns, _generator("test"), None)
    names = [str(d) for d in range(10)]
    return Source("rotated_mnist", train, test, 10, groups=groups, test_groups=test_groups, label_names=names)


def rotate_images(x: Tensor, degrees: float) -> Tensor:
    """Turn images x [N, C, H, W] counter-clockwise about their centre, bilinear, filled with zeros; exact at 0."""
    if degrees % 360 == 0:
        return x
    turn = math.radians(degrees)
    cos, sin = math.cos(turn), math.sin(turn)
    # affine_grid needs the place from which each output pixel comes, and its y axis points down. With y pointing up,
    # this matrix would turn points clockwise; here it finds the place that the opposite turn brings to the pixel.
    matrix = torch.tensor([[cos, -sin, 0.0], [sin, cos, 0.0]], dtype=x.dtype)
    grid = torch.nn.functional.affine_grid(matrix[None], [1, *x.shape[1:]], align_corners=False)
    return torch.nn.functional.grid_sample(x, grid.expand(len(x), -1, -1, -1), align_corners=False)


def _generator(purpose: int | str) -> np.random.Generator:
    return np.random.default_rng(number("rotated_mnist", purpose))


def parse_angles(angles: object) -> dict[str, float]:
    """Return the angles by client id, such as {"15": 15.0}; refuse all but different finite numbers.

    Raises:
        Mistake: they are not a list of different finite numbers.
    """
    if not isinstance(angles, Sequence) or isinstance(angles, str) or len(angles) == 0:
        raise Mistake(key="angles", value=angles, allowed="a list of degrees, such as [0, 15, 30]")
    turns: dict[str, float] = {}
    for angle in angles:
        if isinstance(angle, bool) or not isinstance(angle, int | float) or not math.isfinite(angle):
            raise Mistake(f"it holds {toml_text(angle)}; every angle must be a number of degrees", key="angles")
        turns[f"{angle:.10g}"] = float(cast(float, angle))
    if len(turns) < len(angles):
        raise Mistake("an angle occurs twice; each is one client, so give each once", key="angles", value=list(angles))
    return turns


def _deal_and_turn(
    pixels: Pixels, labels: Pixels, turns: dict[str, float], rng: np.random.Generator, most: int | None
) -> tuple[Examples, list[str]]:
    """Return the examples of all angles, angle after angle, and the client id of each."""
    if len(turns) > len(labels):
        raise Mistake(f"there are {len(turns)} angles, but only {len(labels)} images; name fewer", key="angles")
    parts = [np.sort(part[:most]) for part in np.array_split(rng.permutation(len(labels)), len(turns))]
    x = torch.cat([rotate_images(scale_pixels(pixels[p]), turn) for p, turn in zip(parts, turns.values(), strict=True)])
    y = torch.from_numpy(np.concatenate([labels[p] for p in parts]).astype(np.int64))
    return Examples(x, y), [c for c, p in zip(turns, parts, strict=True) for _ in p]
