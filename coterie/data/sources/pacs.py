"""The source pacs: the same seven things as art paintings, cartoons, photographs and sketches."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from coterie.core.errors import Mistake
from coterie.core.examples import Examples
from coterie.data.numpy_arrays import scale_pixels
from coterie.data.official_files import data_home
from coterie.data.picture_pixels import stack_pixels
from coterie.data.source import Source
from coterie.data.sources.images import find_pictures, open_pictures
from coterie.data.sources.npz import parse_pictures, read_npz
from coterie.data.train_test_split import combine_strata, split_rows

DOMAINS = ["art_painting", "cartoon", "photo", "sketch"]
THINGS = ["dog", "elephant", "giraffe", "guitar", "horse", "house", "person"]
_SIDE_PIXELS = 32
_LANCZOS = 1  # pillow's number for that filter


def pacs(test_fraction: float = 0.2) -> Source:
    """Load PACS, pictures of seven things reduced to 32 x 32, with a client for each domain.

    From `$COTERIE_DATA/pacs/pacs32.npz`: x uint8 [N, 32, 32, 3], y [N] from 0 (dog) to 6 (person), and domain [N]: 0
    art_painting, 1 cartoon, 2 photo, 3 sketch. If that is missing, from the authors' pictures in
    `$COTERIE_DATA/pacs/DOMAIN/CLASS/*.jpg` (or in pacs_data/ there), which pillow reduces at every start by the Lanczos
    filter, in a minute. For pictures in their own size, use the source "images". The data cannot be fetched. A fixed
    test split is taken first, stratified by domain and class.

    Args:
        test_fraction: what part of the examples becomes the test set.

    Raises:
        Mistake: both are missing, or cannot be used.

    Reference: Li, Yang, Song, Hospedales 2017, "Deeper, broader and artier domain generalization".
    """
    x, y, domain = _read_archive_or_pictures(data_home() / "pacs")
    everything = Examples(scale_pixels(x), torch.from_numpy(y))
    train, test = split_rows(combine_strata(domain, y), test_fraction)
    return Source(
        "pacs",
        everything.take(torch.from_numpy(train)),
        everything.take(torch.from_numpy(test)),
        len(THINGS),
        groups=[DOMAINS[d] for d in domain[train]],
        test_groups=[DOMAINS[d] for d in domain[test]],
        label_names=THINGS,
    )


_Arrays = tuple[NDArray[np.uint8], NDArray[np.int64], NDArray[np.int64]]
"""Pixels [N, 3, 32, 32], labels [N], domains [N]."""


def _read_archive_or_pictures(home: Path) -> _Arrays:
    """Return pixels, labels and domains from the archive in `home`, or else from the authors' folders."""
    path = home / "pacs32.npz"
    folder = next((f for f in (home, home / "pacs_data") if all((f / d).is_dir() for d in DOMAINS)), None)
    if path.exists() or folder is None:
        return _read_archive(path)
    return _read_pictures(folder)


def _read_archive(path: Path) -> _Arrays:
    if not path.exists():
        raise Mistake(
            f"{path}: is missing; put there x uint8 [N, 32, 32, 3], y [N] (0 to 6) and domain [N] (0 to 3), or next to "
            f"it the authors' folders {', '.join(DOMAINS)}"
        )
    arrays = read_npz(path, ["x", "y", "domain"])
    x, y = parse_pictures(str(path), arrays["x"], arrays["y"], len(THINGS))
    _, domain = parse_pictures(str(path), arrays["x"], arrays["domain"], len(DOMAINS), "domain")
    return x, y, domain


def _read_pictures(folder: Path) -> _Arrays:
    """Read the authors' pictures, domain after domain, in the order of their names."""
    files = [file for domain in DOMAINS for file in _list_domain_pictures(folder / domain)]
    strange = next((file for file in files if file.parent.name not in THINGS), None)
    if strange is not None:
        raise Mistake(f"{strange}: does not lie in one of the folders {', '.join(THINGS)}; move or remove it")
    y = np.array([THINGS.index(file.parent.name) for file in files], dtype=np.int64)
    domain = np.array([DOMAINS.index(file.parent.parent.name) for file in files], dtype=np.int64)
    return stack_pixels(_shrink_pictures(files)), y, domain


def _list_domain_pictures(folder: Path) -> list[Path]:
    try:
        return find_pictures(folder)[0]
    except Mistake as mistake:  # about the argument of another source
        raise Mistake(f"{folder}: {mistake.sentence}") from mistake


def _shrink_pictures(files: list[Path]) -> Iterator[tuple[str, Any]]:
    for name, picture in open_pictures(files):
        yield name, picture.convert("RGB").resize((_SIDE_PIXELS, _SIDE_PIXELS), _LANCZOS)
