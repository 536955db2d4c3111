"""The source digits: handwritten digits of 8 x 8 pixels, which come with scikit-learn."""

from __future__ import annotations

import numpy as np
import torch

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
    from sklearn.datasets import load_digits

    bunch = load_digits()
    y = bunch.target.astype(np.int64)
    everything = Examples(torch.from_numpy(bunch.images).to(torch.float32).div_(16).unsqueeze(1), torch.from_numpy(y))
    train, test = (everything.take(torch.from_numpy(rows)) for rows in split_rows(y, test_fraction))
    return Source("digits", train, test, 10, label_names=[str(d) for d in range(10)])
