"""Digits of two domains, one client each: MNIST's, and the same ones blended into colour photographs."""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

from coterie.core.errors import Mistake
from coterie.core.examples import Examples
from coterie.core.rng import number
from coterie.data.argument_checks import require_count
from coterie.data.arrays import images
from coterie.data.source import Source
from coterie.data.sources.mnist import part as mnist_part
from coterie.data.sources.mnist_m import mnist_m


def digits_mix(examples_per_client: int | None = None, rng_seed: int = 0) -> Source:
    """MNIST and MNIST-M as two domains of one task, float32 [3, 32, 32]; the clients are "mnist" and "mnist_m".

    MNIST's digits get a border of two pixels and are repeated in three channels. Both domains count alike: of either
    no more examples are taken than the other has, at random for training and always the same for testing.

    Args:
        examples_per_client: take no more training examples than this from each domain; all by default.
        rng_seed: which ones.

    Raises:
        Mistake: a file of either is absent, or cannot be used.
    """
    coloured = mnist_m()
    if coloured.test is None:
        raise Mistake("mnist_m: has no test examples")
    most = (
        len(coloured.train)
        if examples_per_client is None
        else require_count("examples_per_client", examples_per_client)
    )
    train, groups = _both("train", coloured.train, most, _rng(int(rng_seed)))
    test, test_groups = _both("t10k", coloured.test, len(coloured.test), _rng("test"))
    names = [str(d) for d in range(10)]
    return Source("digits_mix", train, test, 10, groups=groups, test_groups=test_groups, label_names=names)


def widened(x: Tensor) -> Tensor:
    """Grey images [N, 1, 28, 28] in the form of MNIST-M's, [N, 3, 32, 32]."""
    return torch.nn.functional.pad(x, [2] * 4).repeat(1, 3, 1, 1)


def _rng(purpose: int | str) -> np.random.Generator:
    return np.random.default_rng(number("digits_mix", purpose))


def _both(part: str, coloured: Examples, most: int, rng: np.random.Generator) -> tuple[Examples, list[str]]:
    """Equally many examples of both domains, at most `most`, and the client id of each."""
    pixels, labels = mnist_part(part)
    n = min(most, len(labels), len(coloured))
    grey = np.sort(rng.choice(len(labels), n, replace=False))
    x, y = coloured.take(torch.from_numpy(np.sort(rng.choice(len(coloured), n, replace=False)))).tensors()
    assert y is not None
    both = Examples(
        torch.cat([widened(images(pixels[grey])), x]), torch.cat([torch.from_numpy(labels[grey].astype(np.int64)), y])
    )
    return both, ["mnist"] * n + ["mnist_m"] * n
