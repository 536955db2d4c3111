"""The source digits_mix: digits of two domains, one client each: MNIST and MNIST-M."""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

from coterie.core.errors import Mistake
from coterie.core.examples import Examples
from coterie.core.kinds import Count
from coterie.core.rng import number
from coterie.data.argument_checks import require_count
from coterie.data.numpy_arrays import scale_pixels
from coterie.data.source import Source
from coterie.data.sources.mnist import read_mnist
from coterie.data.sources.mnist_m import mnist_m


def digits_mix(examples_per_client: Count | None = None, rng_seed: int = 0) -> Source:
    """Load MNIST and MNIST-M as two domains of one task, float32 [3, 32, 32]; the clients are "mnist" and "mnist_m".

    MNIST's digits get a border of two pixels and are repeated in three channels. Both domains have equally many
    examples: the larger one gives only some, at random for training and always the same for testing.

    Args:
        examples_per_client: take at most this many training examples from each domain; all by default.
        rng_seed: decides which ones.

    Raises:
        Mistake: a file of either is missing, or cannot be used.
    """
    coloured = mnist_m()
    if coloured.test is None:
        raise Mistake("mnist_m: has no test examples")
    most = (
        len(coloured.train)
        if examples_per_client is None
        else require_count("examples_per_client", examples_per_client)
    )
    train, groups = _mix_domains("train", coloured.train, most, _generator(int(rng_seed)))
    test, test_groups = _mix_domains("t10k", coloured.test, len(coloured.test), _generator("test"))
    names = [str(d) for d in range(10)]
    return Source("digits_mix", train, test, 10, groups=groups, test_groups=test_groups, label_names=names)


def pad_and_colour(x: Tensor) -> Tensor:
    """Return grey images [N, 1, 28, 28] in the form of MNIST-M's, [N, 3, 32, 32]."""
    return torch.nn.functional.pad(x, [2] * 4).repeat(1, 3, 1, 1)


def _generator(purpose: int | str) -> np.random.Generator:
    return np.random.default_rng(number("digits_mix", purpose))


def _mix_domains(part: str, coloured: Examples, most: int, rng: np.random.Generator) -> tuple[Examples, list[str]]:
    """Return equally many examples of both domains, at most `most` each, and the client id of each example."""
    pixels, labels = read_mnist(part)
    n = min(most, len(labels), len(coloured))
    grey = np.sort(rng.choice(len(labels), n, replace=False))
    x, y = coloured.take(torch.from_numpy(np.sort(rng.choice(len(coloured), n, replace=False)))).tensors()
    assert y is not None
    both = Examples(
        torch.cat([pad_and_colour(scale_pixels(pixels[grey])), x]),
        torch.cat([torch.from_numpy(labels[grey].astype(np.int64)), y]),
    )
    return both, ["mnist"] * n + ["mnist_m"] * n
