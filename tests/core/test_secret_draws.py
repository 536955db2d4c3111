"""Draws from a secret: their distribution, and that they repeat."""

from __future__ import annotations

import math

import numpy as np
import torch
from scipy import stats

from coterie.core.secret_draws import BLOCK, choose, gaussian, join_purpose


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


def test_each_thing_is_chosen_with_its_probability() -> None:
    """Of 100,000 with probability 0.3: within five standard deviations; of three with probability 1: all."""
    rows = choose(100_000, 0.3, "secret")
    assert abs(len(rows) - 30_000) < 5 * math.sqrt(100_000 * 0.3 * 0.7)
    assert bool((rows.diff() > 0).all())
    assert choose(3, 1.0, "secret").tolist() == [0, 1, 2]


def test_keys_of_different_purposes_differ() -> None:
    keys = {join_purpose("s", 1, "a"), join_purpose("s", 1, "b"), join_purpose("s", 12, 3), join_purpose("s", 1, 23)}
    assert len(keys) == 4
