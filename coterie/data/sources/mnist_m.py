"""The source mnist_m: MNIST's digits blended into colour photographs, another domain of the same classes."""

from __future__ import annotations

import numpy as np
import torch
from numpy.typing import NDArray

from coterie.core.errors import Mistake
from coterie.core.examples import Examples
from coterie.data.numpy_arrays import scale_pixels
from coterie.data.official_files import data_home
from coterie.data.source import Source
from coterie.data.sources.npz import parse_pictures, read_npz


def mnist_m() -> Source:
    """Load MNIST-M from `$COTERIE_DATA/mnist_m/mnist_m.npz`.

    The file holds train_x and test_x uint8 [N, 32, 32, 3], train_y and test_y [N] from 0 to 9. It cannot be fetched,
    since the authors publish separate pictures: write it from those.

    Raises:
        Mistake: the file is missing, or cannot be used.

    Reference: Ganin, Lempitsky 2015 (arXiv 1409.7495).
    """
    path = data_home() / "mnist_m" / "mnist_m.npz"
    if not path.exists():
        raise Mistake(
            f"{path}: is missing; put there train_x, test_x uint8 [N, 32, 32, 3] and train_y, test_y [N] (0 to 9)"
        )
    arrays = read_npz(path, ["train_x", "train_y", "test_x", "test_y"])
    train, test = (_parse_part(str(path), arrays[f"{part}_x"], arrays[f"{part}_y"]) for part in ("train", "test"))
    return Source("mnist_m", train, test, 10, label_names=[str(d) for d in range(10)])


def _parse_part(name: str, x: NDArray[np.generic], y: NDArray[np.generic]) -> Examples:
    pixels, labels = parse_pictures(name, x, y, 10)
    return Examples(scale_pixels(pixels), torch.from_numpy(labels))
