"""PACS: the same seven things as art paintings, cartoons, photographs and sketches."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from coterie.core.errors import Mistake
from coterie.core.examples import Examples
from coterie.data.arrays import images as scaled
from coterie.data.files import data_home
from coterie.data.pictures import pixels
from coterie.data.source import Source
from coterie.data.sources.images import find, opened
from coterie.data.sources.npz import pictures, read
from coterie.data.split import combined, fixed_split

DOMAINS = ["art_painting", "cartoon", "photo", "sketch"]
LABELS = ["dog", "elephant", "giraffe", "guitar", "horse", "house", "person"]
SIDE = 32
LANCZOS = 1
"""Pillow's number for that filter."""


def pacs(test_fraction: float = 0.2) -> Source:
    """PACS reduced to 32 x 32; a client for each domain.

    From `$COTERIE_DATA/pacs/pacs32.npz`: x uint8 [N, 32, 32, 3], y [N] from 0 (dog) to 6 (person), and domain [N]: 0
    art_painting, 1 cartoon, 2 photo, 3 sketch. Or where that is absent from the authors' pictures,
    `$COTERIE_DATA/pacs/DOMAIN/CLASS/*.jpg` (or in pacs_data/ there), reduced by Lanczos at every start, which takes a
    minute; needs pillow. In their own size the source "images" reads them. They cannot be fetched. A fixed test split
    is taken first, stratified by domain and class.

    Args:
        test_fraction: what part of the examples becomes the test set.

    Raises:
        Mistake: both are absent, or what is there cannot be used.

    Reference: Li, Yang, Song, Hospedales 2017, "Deeper, broader and artier domain generalization".
    """
    x, y, domain = _everything(data_home() / "pacs")
    everything = Examples(scaled(x), torch.from_numpy(y))
    train, test = fixed_split(combined(domain, y), test_fraction)
    return Source(
        "pacs",
        everything.take(torch.from_numpy(train)),
        everything.take(torch.from_numpy(test)),
        len(LABELS),
        groups=[DOMAINS[d] for d in domain[train]],
        test_groups=[DOMAINS[d] for d in domain[test]],
        label_names=LABELS,
    )


Arrays = tuple[NDArray[np.uint8], NDArray[np.int64], NDArray[np.int64]]
"""Pixels [N, 3, 32, 32], labels [N], domains [N]."""


def _everything(home: Path) -> Arrays:
    path = home / "pacs32.npz"
    folder = next((f for f in (home, home / "pacs_data") if all((f / d).is_dir() for d in DOMAINS)), None)
    if path.exists() or folder is None:
        return _archive(path)
    return _pictures(folder)


def _archive(path: Path) -> Arrays:
    if not path.exists():
        raise Mistake(
            f"{path}: is absent; put there x uint8 [N, 32, 32, 3], y [N] (0 to 6) and domain [N] (0 to 3), or beside "
            f"it the authors' folders {', '.join(DOMAINS)}"
        )
    arrays = read(path, ["x", "y", "domain"])
    x, y = pictures(str(path), arrays["x"], arrays["y"], len(LABELS))
    _, domain = pictures(str(path), arrays["x"], arrays["domain"], len(DOMAINS), "domain")
    return x, y, domain


def _pictures(folder: Path) -> Arrays:
    """The authors' pictures, domain after domain, in the order of their names."""
    files = [file for domain in DOMAINS for file in find(folder / domain)[0]]
    strange = next((file for file in files if file.parent.name not in LABELS), None)
    if strange is not None:
        raise Mistake(f"{strange}: lies in none of the folders {', '.join(LABELS)}; move or remove it")
    y = np.array([LABELS.index(file.parent.name) for file in files], dtype=np.int64)
    domain = np.array([DOMAINS.index(file.parent.parent.name) for file in files], dtype=np.int64)
    return pixels(_reduced(files)), y, domain


def _reduced(files: list[Path]) -> Iterator[tuple[str, Any]]:
    for name, picture in opened(files):
        yield name, picture.convert("RGB").resize((SIDE, SIDE), LANCZOS)
