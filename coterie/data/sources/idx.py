"""The idx format of MNIST and its relatives, and the four files that each of them consists of.

Format: two zero bytes, a type code (8: unsigned byte), the number of dimensions, each dimension as four bytes with the
highest first, then the values. Reference: LeCun, Cortes, Burges, "The MNIST database".
"""

from __future__ import annotations

import gzip
import zlib
from math import prod
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray

from coterie.core.errors import Mistake
from coterie.core.examples import Examples
from coterie.data.arrays import images
from coterie.data.files import official

Pixels = NDArray[np.uint8]


def read(path: Path, dimensions: int) -> Pixels:
    """The values of a gzipped idx file, uint8 with `dimensions` axes.

    Raises:
        Mistake: the file cannot be read, is truncated, or is no idx file of so many dimensions.
    """
    again = "replace it, or delete it to have it fetched"
    try:
        with gzip.open(path) as file:
            content = bytearray(file.read())  # writable, as torch wants it
    except (OSError, EOFError, zlib.error) as error:
        raise Mistake(f"{path}: is no whole gzip file ({error}); {again}") from error
    header = 4 + 4 * dimensions
    if len(content) < header or content[:4] != bytes([0, 0, 8, dimensions]):
        raise Mistake(
            f"{path}: begins with {content[:4].hex()} where an idx file of {dimensions} dimensions has "
            f"{bytes([0, 0, 8, dimensions]).hex()}; {again}"
        )
    shape = tuple(int.from_bytes(content[at : at + 4], "big") for at in range(4, header, 4))
    if len(content) - header != prod(shape):
        raise Mistake(f"{path}: holds {len(content) - header} values where its header says {prod(shape)}; {again}")
    return np.frombuffer(content, np.uint8, offset=header).reshape(shape)


def pair(source: str, url: str, files: dict[str, str], part: str, num_classes: int) -> tuple[Pixels, Pixels]:
    """Images [N, H, W] and labels [N] of one part ("train" or "t10k"), fetched where they are absent.

    Args:
        source: the source's name and folder.
        url: the folder that the files are fetched from.
        files: for each file its checksum.
        part: how the names of its two files begin.
        num_classes: C; labels are 0 to C - 1.

    Raises:
        Mistake: a file is absent and cannot be fetched, or is damaged, or the two do not belong together.
    """
    first, second = (name for name in files if name.startswith(part))  # images before labels
    image_path, label_path = (official(source, name, url + name, files[name]) for name in (first, second))
    x, y = read(image_path, 3), read(label_path, 1)
    if len(x) != len(y):
        raise Mistake(f"{label_path}: holds {len(y)} labels for the {len(x)} images of {image_path.name}; replace one")
    if len(y) == 0 or y.max() >= num_classes:
        found = f"the label {y.max()}" if len(y) else "nothing"
        raise Mistake(f"{label_path}: holds {found}; labels must be 0 to {num_classes - 1}; replace it")
    return x, y


def examples(pixels: Pixels, labels: Pixels) -> Examples:
    """Images [N, H, W] and labels [N] as examples: x float32 [N, 1, H, W] in [0, 1], y int64 [N]."""
    return Examples(images(pixels), torch.from_numpy(labels.astype(np.int64)))
