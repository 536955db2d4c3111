"""The digits are those of scikit-learn's own function, which is called where its file is not found."""

import importlib.util

import numpy as np
import pytest
import torch
from sklearn.datasets import load_digits

from coterie.data.sources import digits as module


def test_the_file_holds_what_scikit_learn_returns(monkeypatch: pytest.MonkeyPatch) -> None:
    expected = load_digits()
    monkeypatch.setattr("sklearn.datasets.load_digits", None)  # the file is there, so nobody calls it
    pixels, y = module._read_pixels()
    assert np.array_equal(pixels.reshape(-1, 8, 8), expected.images)
    assert np.array_equal(y, expected.target)
    source = module.digits()
    assert (len(source.train), len(source.test or ())) == (1438, 359)
    assert source.train.x.shape[1:] == (1, 8, 8)
    assert source.train.x.dtype == torch.float32
    assert float(source.train.x.max()) == 1.0


def test_without_the_file_the_function_is_called(monkeypatch: pytest.MonkeyPatch) -> None:
    expected = module.digits()
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    found = module.digits()
    assert torch.equal(found.train.x, expected.train.x)
    assert torch.equal(found.train.y, expected.train.y)
