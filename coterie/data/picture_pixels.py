"""Pixels of pictures that pillow opened.

Legend: N pictures, C channels.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Any

import numpy as np
from numpy.typing import NDArray

from coterie.core.errors import Mistake
from coterie.core.packages import import_package

_GREY_MODES, _COLOUR_MODES = {"1", "L", "LA"}, {"RGB", "RGBA", "P", "PA", "CMYK", "YCbCr", "HSV"}


def stack_pixels(
    pictures: Iterable[tuple[str, Any]], remedy: str = "bring all pictures to one size"
) -> NDArray[np.uint8]:
    """Return pictures of one size as uint8 [N, C, H, W]; C = 1 if all are grey, else 3; transparency is dropped.

    Args:
        pictures: a name for messages, and the picture as pillow opens it. They are read one after another, once.
        remedy: what to do about pictures of unlike sizes.

    Raises:
        Mistake: they differ in size, or one has more than 8 bits a channel.
    """
    planes: list[NDArray[np.uint8]] = []  # each [H, W], or [H, W, 3] if it has colour
    first, size = "", (0, 0)
    for name, picture in pictures:
        converted = _to_grey_or_colour(name, picture)
        first, size = (first, size) if planes else (name, picture.size)
        if picture.size != size:
            sizes = f"{picture.size[0]} x {picture.size[1]} where {first} has {size[0]} x {size[1]}"
            raise Mistake(f"{name}: has {sizes}; {remedy}")
        planes.append(np.asarray(converted))
    channels = 1 if all(plane.ndim == 2 for plane in planes) else 3
    result = np.empty((len(planes), channels, size[1], size[0]), dtype=np.uint8)
    for k, plane in enumerate(planes):
        result[k] = plane if plane.ndim == 2 else plane.transpose(2, 0, 1)  # a grey picture fills all channels alike
    return result


def fit_squares(pictures: Iterable[tuple[str, Any]], side: int) -> Iterator[tuple[str, Any]]:
    """Yield each picture's largest centred square, reduced or enlarged by the Lanczos filter.

    Args:
        pictures: as `stack_pixels` takes them, of any sizes.
        side: of the result, in pixels.

    Raises:
        Mistake: one has more than 8 bits a channel.
    """
    pillow, operations = (import_package(name, "source", "images", "images") for name in ("PIL.Image", "PIL.ImageOps"))
    for name, picture in pictures:
        yield name, operations.fit(_to_grey_or_colour(name, picture), (side, side), pillow.Resampling.LANCZOS)


def _to_grey_or_colour(name: str, picture: Any) -> Any:
    """Return the picture as 8 bits of grey, or of red, green and blue."""
    if picture.mode not in _GREY_MODES | _COLOUR_MODES:
        raise Mistake(f"{name}: has pixels of the kind {picture.mode!r}; convert it to 8 bits a channel")
    return picture.convert("L" if picture.mode in _GREY_MODES else "RGB")
