"""The source digits: handwritten digits of 8 x 8 pixels, which come with scikit-learn."""

from __future__ import annotations

import importlib.util
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray

from coterie.core.examples import Examples
from coterie.data.source import Source
from coterie.data.train_test_split import split_rows


def digits(test_fraction: float = 0.2) -> Source:
    """Load scikit-learn's 1,797 images [1, 8, 8] of handwritten digits, scaled to [0, 1].

    There is no official test split, so a fixed one, stratified by digit, is taken first.

    Args:
        test_fraction: what part of the examples becomes the test set.

    Raises:
        Mistake: `test_fraction` is not between 0 and 1.

    Reference: Alpaydin, Kaynak 1998 (UCI, "Optical recognition of handwritten digits").
    """
    pixels, y = _read_pixels()
    images = torch.from_numpy(pixels).to(torch.float32).div_(16).reshape(-1, 1, 8, 8)
    everything = Examples(images, torch.from_numpy(y))
    train, test = (everything.take(torch.from_numpy(rows)) for rows in split_rows(y, test_fraction))
    return Source("digits", train, test, 10, label_names=[str(d) for d in range(10)])


def _read_pixels() -> tuple[NDArray[np.float64], NDArray[np.int64]]:
    """Return the pixels [N, 64], from 0 to 16, and the digits [N].

    scikit-learn's own function takes as long to import as half of PyTorch. So its file is read where it is known to
    lie, and the function is called where it is not there.
    """
    package = importlib.util.find_spec("sklearn")
    file = package and package.origin and Path(package.origin).parent / "datasets" / "data" / "digits.csv.gz"
    if file and file.is_file():
        rows = np.loadtxt(file, delimiter=",")  # [N, 65], the digit last
        return rows[:, :-1], rows[:, -1].astype(np.int64)
    from sklearn.datasets import load_digits

    bunch = load_digits()
    return bunch.data, bunch.target.astype(np.int64)
