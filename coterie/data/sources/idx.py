"""The idx format, and the four files of MNIST and of data sets in its form.

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
from coterie.data.numpy_arrays import scale_pixels
from coterie.data.official_files import find_or_fetch

Pixels = NDArray[np.uint8]


def read_idx(path: Path, dimensions: int) -> Pixels:
    """Read the values of a gzipped idx file, uint8 with `dimensions` axes.

    Raises:
        Mistake: the file cannot be read, is truncated, or is not an idx file with that number of dimensions.
    """
    replace = "replace it, or delete it to have it fetched"
    try:
        with gzip.open(path) as file:
            content = bytearray(file.read())  # writable, as torch wants it
    except (OSError, EOFError, zlib.error) as error:
        raise Mistake(f"{path}: is not a complete gzip file ({error}); {replace}") from error
    header = 4 + 4 * dimensions
    if len(content) < header or content[:4] != bytes([0, 0, 8, dimensions]):
        raise Mistake(
            f"{path}: begins with {content[:4].hex()} where an idx file of {dimensions} dimensions has "
            f"{bytes([0, 0, 8, dimensions]).hex()}; {replace}"
        )
    shape = tuple(int.from_bytes(content[at : at + 4], "big") for at in range(4, header, 4))
    if len(content) - header != prod(shape):
        raise Mistake(f"{path}: holds {len(content) - header} values where its header says {prod(shape)}; {replace}")
    return np.frombuffer(content, np.uint8, offset=header).reshape(shape)


def read_pair(source: str, url: str, files: dict[str, str], part: str, num_classes: int) -> tuple[Pixels, Pixels]:
    """Read images [N, H, W] and labels [N] of one part ("train" or "t10k"); missing files are fetched.

    Args:
        source: the source's name and folder.
        url: the folder that the files are fetched from.
        files: for each file its checksum.
        part: the beginning of the names of its two files.
        num_classes: C; labels are 0 to C - 1.

    Raises:
        Mistake: a file is missing and cannot be fetched, or is damaged, or the two do not belong together.
    """
    first, second = (name for name in files if name.startswith(part))  # images before labels
    image_path, label_path = (find_or_fetch(source, name, url + name, files[name]) for name in (first, second))
    x, y = read_idx(image_path, 3), read_idx(label_path, 1)
    if len(x) != len(y):
        raise Mistake(f"{label_path}: holds {len(y)} labels for the {len(x)} images of {image_path.name}; replace one")
    if len(y) == 0 or y.max() >= num_classes:
        found = f"the label {y.max()}" if len(y) else "nothing"
        raise Mistake(f"{label_path}: holds {found}; labels must be 0 to {num_classes - 1}; replace it")
    return x, y


def examples_from_pixels(pixels: Pixels, labels: Pixels) -> Examples:
    """Return images [N, H, W] and labels [N] as examples: x float32 [N, 1, H, W] in [0, 1], y int64 [N]."""
    return Examples(scale_pixels(pixels), torch.from_numpy(labels.astype(np.int64)))
