"""Draw a sheet of example fractals and pairs, so that a person can see what an encoder is trained on."""

from __future__ import annotations

import io
from collections.abc import Sequence
from dataclasses import replace

import numpy as np
import torch
from matplotlib import rc_context
from matplotlib.figure import Figure
from numpy.typing import NDArray
from torch import Tensor

from coterie.pretrain.pair_batches import PairBatches, Sizes

COLUMNS = 12
"""Pictures of a row."""
PICTURE_INCHES, DPI = 0.8, 120


def draw_example_sheet(sizes: Sizes, rng_seed: int) -> bytes:
    """Draw the fractals of the first pairs, the two images of each pair, and the views for training, as a PNG."""
    number = max(COLUMNS, sizes.max_objects)
    few = replace(sizes, batch_size=number, cached_systems=max(sizes.cached_systems, 2 * number))
    batches = PairBatches(few, rng_seed)
    pairs = batches.pairs(0)
    views = PairBatches(few, rng_seed).views(0)
    first_slot = [batches.cache.system.tolist().index(system) for system in pairs.systems[:COLUMNS, 0].tolist()]
    rows = [
        ("a fractal", batches.cache.grey[0, first_slot][:, None]),
        ("it and others,\ntwice", pairs.first),
        ("", pairs.second),
        ("as trained on", views[:, 0]),
        ("", views[:, 1]),
    ]
    return _draw_rows(rows)


def _draw_rows(rows: Sequence[tuple[str, Tensor]]) -> bytes:
    """Draw a row of pictures for each (label, pictures), and return the sheet as a PNG."""
    with rc_context({"font.size": 8}):
        figure = Figure(figsize=((COLUMNS + 1.2) * PICTURE_INCHES, len(rows) * PICTURE_INCHES))
        for row, (label, pictures) in enumerate(rows):
            bottom = 1 - (row + 1) / len(rows)
            figure.text(0.01, bottom + 0.5 / len(rows), label, va="center")
            for column, picture in enumerate(pictures[:COLUMNS]):
                place = ((column + 1.2) / (COLUMNS + 1.2), bottom + 0.01, 0.94 / (COLUMNS + 1.2), 0.94 / len(rows))
                axes = figure.add_axes(place)
                axes.imshow(_to_picture(picture), interpolation="nearest", vmin=0, vmax=1)
                axes.axis("off")
        file = io.BytesIO()
        figure.savefig(file, format="png", dpi=DPI, metadata={"Software": None})
    return file.getvalue()


def _to_picture(x: Tensor) -> NDArray[np.float32]:
    """Convert x [C, H, W] to [H, W, 3]."""
    pixels: NDArray[np.float32] = torch.clamp(x, 0, 1).expand(3, -1, -1).permute(1, 2, 0).numpy()
    return pixels
