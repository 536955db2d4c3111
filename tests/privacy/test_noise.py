"""The noise: Gaussian, the same for the same key, and another for any other."""

from __future__ import annotations

import numpy as np
import torch
from scipy import stats

from coterie.core import tree
from coterie.privacy.noise import BLOCK, add_noise, gaussian


def test_draws_are_standard_normal() -> None:
    """Kolmogorov and Smirnov find no difference in 100,000 draws, and neighbouring draws are not correlated."""
    draws = gaussian("key", (100_000,)).numpy()
    assert stats.kstest(draws, "norm").pvalue > 0.01
    assert abs(np.corrcoef(draws[:-1], draws[1:])[0, 1]) < 4 / np.sqrt(len(draws))
    half = len(draws) // 2  # the sine and the cosine of one pair
    assert abs(np.corrcoef(draws[:half], draws[half:])[0, 1]) < 4 / np.sqrt(half)
    assert abs(np.corrcoef(draws[:half] ** 2, draws[half:] ** 2)[0, 1]) < 4 / np.sqrt(half)


def test_draws_are_a_function_of_the_key() -> None:
    assert torch.equal(gaussian("a", (3, 5)), gaussian("a", (15,)).reshape(3, 5))
    assert not torch.equal(gaussian("a", (4,)), gaussian("b", (4,)))
    assert gaussian("a", ()).shape == ()
    assert gaussian("a", (0,)).shape == (0,)
    long = gaussian("a", (BLOCK + 3,))
    assert len(long.unique()) == len(long)


def test_each_leaf_gets_noise_of_its_parts_deviation() -> None:
    total = {"a": {"x": torch.zeros(20_000).double()}, "b": torch.ones(20_000).double()}
    noisy = add_noise(total, {"a": 3.0, "b": 0.5}, "key")
    assert abs(float(noisy["a"]["x"].std()) - 3.0) < 0.1
    assert abs(float(noisy["b"].std()) - 0.5) < 0.02
    assert abs(float(noisy["b"].mean()) - 1.0) < 0.02
    reversed_order = add_noise(dict(reversed(total.items())), {"a": 3.0, "b": 0.5}, "key")
    assert all(torch.equal(x, tree.flatten(reversed_order)[name]) for name, x in tree.flatten(noisy).items())
