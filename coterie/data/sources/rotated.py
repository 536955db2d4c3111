"""The source rotated: any images, each client's turned by an angle of its own."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch

from coterie.core.errors import Mistake
from coterie.core.examples import Examples
from coterie.core.kinds import Count
from coterie.core.rng import number
from coterie.data.argument_checks import require_count
from coterie.data.source import Source
from coterie.data.sources import SOURCES, load
from coterie.data.sources.rotated_mnist import parse_angles, rotate_images


def rotated(of: str, angles: Sequence[float], examples_per_client: Count | None = None, rng_seed: int = 0) -> Source:
    """Load the images of another source, deal them evenly to `angles`, and turn each client's by its angle.

    The client of 15 degrees is called "15". Test images are dealt and turned in the same way, independently of
    `rng_seed`.

    Args:
        of: a source of images [C, H, W] that needs no keys of its own, such as "fashion_mnist" or "cifar10".
        angles: degrees, counter-clockwise, all different; each is one client.
        examples_per_client: turn at most this many training images for each client; all by default.
        rng_seed: decides which training images each client gets.

    Raises:
        Mistake: the angles or the source cannot be used, or the source holds no images.
    """
    SOURCES.find(of, key="of")
    source, turns = load(of), parse_angles(angles)
    if source.train.x.dim() != 4:
        shape = list(source.train.x.shape[1:])
        raise Mistake(f"it holds examples of shape {shape}, which are not images", key="of", value=of)
    most = None if examples_per_client is None else require_count("examples_per_client", examples_per_client)
    train, groups = _deal_and_turn(
        source.train, turns, np.random.default_rng(number("rotated", of, int(rng_seed))), most
    )
    test, test_groups = None, None
    if source.test is not None:
        test, test_groups = _deal_and_turn(
            source.test, turns, np.random.default_rng(number("rotated", of, "test")), None
        )
    return Source(
        "rotated", train, test, source.num_classes, groups=groups, test_groups=test_groups,
        label_names=source.label_names,
    )  # fmt: skip


def _deal_and_turn(
    examples: Examples, turns: dict[str, float], rng: np.random.Generator, most: int | None
) -> tuple[Examples, list[str]]:
    """Return the examples of all angles, angle after angle, and the client id of each."""
    if len(turns) > len(examples):
        raise Mistake(f"there are {len(turns)} angles, but only {len(examples)} images; name fewer", key="angles")
    parts = [np.sort(part[:most]) for part in np.array_split(rng.permutation(len(examples)), len(turns))]
    taken = [examples.take(torch.from_numpy(part)).tensors() for part in parts]
    x = torch.cat([rotate_images(x, turn) for (x, _), turn in zip(taken, turns.values(), strict=True)])
    ys = [y for _, y in taken if y is not None]
    groups = [client for client, part in zip(turns, parts, strict=True) for _ in part]
    return Examples(x, torch.cat(ys) if len(ys) == len(taken) else None), groups
