"""The noise on a sum: each part's own deviation, whatever the order of the leaves."""

from __future__ import annotations

import torch

from coterie.core import tree
from coterie.privacy.noise import add_noise


def test_each_leaf_gets_noise_of_its_parts_deviation() -> None:
    total = {"a": {"x": torch.zeros(20_000).double()}, "b": torch.ones(20_000).double()}
    noisy = add_noise(total, {"a": 3.0, "b": 0.5}, "key")
    assert abs(float(noisy["a"]["x"].std()) - 3.0) < 0.1
    assert abs(float(noisy["b"].std()) - 0.5) < 0.02
    assert abs(float(noisy["b"].mean()) - 1.0) < 0.02
    reversed_order = add_noise(dict(reversed(total.items())), {"a": 3.0, "b": 0.5}, "key")
    assert all(torch.equal(x, tree.flatten(reversed_order)[name]) for name, x in tree.flatten(noisy).items())
