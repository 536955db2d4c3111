"""MNIST-M: MNIST's digits blended into colour photographs, another domain for the same classes."""

from __future__ import annotations

import numpy as np
import torch
from numpy.typing import NDArray

from coterie.core.errors import Mistake
from coterie.core.examples import Examples
from coterie.data.arrays import images
from coterie.data.files import data_home
from coterie.data.source import Source
from coterie.data.sources.npz import pictures, read


def mnist_m() -> Source:
    """MNIST-M, from `$COTERIE_DATA/mnist_m/mnist_m.npz`.

    The file holds train_x and test_x uint8 [N, 32, 32, 3], train_y and test_y [N] from 0 to 9. The authors publish
    separate pictures, so it cannot be fetched: collect them, and put it there.

    Raises:
        Mistake: the file is absent, or cannot be used.

    Reference: Ganin, Lempitsky 2015 (arXiv 1409.7495).
    """
    path = data_home() / "mnist_m" / "mnist_m.npz"
    if not path.exists():
        raise Mistake(
            f"{path}: is absent; put there train_x, test_x uint8 [N, 32, 32, 3] and train_y, test_y [N] (0 to 9)"
        )
    arrays = read(path, ["train_x", "train_y", "test_x", "test_y"])
    train, test = (_part(str(path), arrays[f"{part}_x"], arrays[f"{part}_y"]) for part in ("train", "test"))
    return Source("mnist_m", train, test, 10, label_names=[str(d) for d in range(10)])


def _part(name: str, x: NDArray[np.generic], y: NDArray[np.generic]) -> Examples:
    pixels, labels = pictures(name, x, y, 10)
    return Examples(images(pixels), torch.from_numpy(labels))
