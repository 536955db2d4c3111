"""Draws from a secret: their distribution, and that they repeat."""

import math

import torch

from coterie.core.secret_draws import choose, normal


def test_normal_numbers_are_normal() -> None:
    """The distance of 100,000 numbers from the distribution is below its 0.1 % quantile, 1.95 / sqrt(n)."""
    n = 100_001
    x = normal(n, "secret", 1).sort().values
    assert x.dtype == torch.float64
    expected = 0.5 * (1 + torch.erf(x / math.sqrt(2)))
    assert float((expected - (torch.arange(n) + 0.5) / n).abs().max()) < 1.95 / math.sqrt(n)
    pairs = x.new_tensor(normal(n - 1, "other").tolist()).reshape(2, -1)
    assert abs(float((pairs[0] * pairs[1]).mean())) < 5 / math.sqrt(n / 2)  # the two of a pair do not go together


def test_each_thing_is_chosen_with_its_probability() -> None:
    """Of 100,000 with probability 0.3: within five standard deviations; of three with probability 1: all."""
    rows = choose(100_000, 0.3, "secret", "a")
    assert abs(len(rows) - 30_000) < 5 * math.sqrt(100_000 * 0.3 * 0.7)
    assert bool((rows.diff() > 0).all())
    assert choose(3, 1.0, "secret").tolist() == [0, 1, 2]


def test_draws_depend_on_the_secret_and_the_purpose_alone() -> None:
    assert torch.equal(normal(5, "s", 1, "a"), normal(5, "s", 1, "a"))
    assert not torch.equal(normal(5, "s", 1, "a"), normal(5, "t", 1, "a"))
    assert not torch.equal(normal(5, "s", 1, "a"), normal(5, "s", 1, "b"))
    assert not torch.equal(normal(5, "s", 12, 3), normal(5, "s", 1, 23))
