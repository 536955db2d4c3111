"""Measure the loss between and around trained models: whether they lie in one basin.

    line    w(t) = (1 - t) a + t b
    plane   w(x, y) = a + x u + y v, with u and v orthonormal and b and c on the plane

Float buffers (BatchNorm's statistics) are combined like parameters, unless the `Surface` measures them again at every
place, which is better: see `coterie.models.batchnorm_statistics`. Distances are those of the parameters alone.

Chen et al. (On the Importance and Applicability of Pre-Training for Federated Learning, ICLR 2023) compare final models
that began at the same weights and were trained under different client conditions. The barrier is that of Entezari et
al. (The Role of Permutation Invariance in Linear Mode Connectivity of Neural Networks, ICLR 2022); Frankle et al.
(2020) take the mean of the ends' losses instead of the chord. The plane is that of Garipov et al. (Loss Surfaces, Mode
Connectivity, and Fast Ensembling of DNNs, NeurIPS 2018).
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Any

from coterie.core import tree
from coterie.core.errors import Mistake, require
from coterie.core.tree import Tree
from coterie.probes.loss_surface import Surface
from coterie.probes.update_geometry import inner, length, linear_combination

LINE_PLACES = tuple(k / 20 for k in range(-4, 25))
"""From -0.2 to 1.2 in steps of 0.05: both models, the way between them, and a little beyond."""

Progress = Callable[[Sequence[Any]], Iterable[Any]]
"""Iterates over the places to measure; it may show the progress."""


@dataclass(frozen=True)
class Line:
    """The loss along the line through two models.

    Attributes:
        t: the places; 0 is the first model, 1 the second.
        measures: "loss", "accuracy" and so on -> its value at each t.
        distance: |b - a|.
    """

    t: Sequence[float]
    measures: dict[str, list[float]]
    distance: float

    @property
    def barrier(self) -> float:
        """How far the loss rises above the straight chord between its ends.

        It is max over 0 <= t <= 1 of loss(t) - (loss(0) + t (loss(1) - loss(0))): 0 where the loss is convex.

        >>> Line((-1.0, 0.0, 0.5, 1.0), {"loss": [9.0, 1.0, 4.0, 2.0]}, 1.0).barrier
        2.5
        >>> Line((0.0, 0.3, 1.0), {"loss": [0.7, 0.7, 0.7]}, 0.0).barrier
        0.0
        """
        losses = {t: loss for t, loss in zip(self.t, self.measures["loss"], strict=True) if 0 <= t <= 1}
        first, last = losses[0.0], losses[1.0]
        above = [loss - (first + t * (last - first)) for t, loss in losses.items()]  # exactly 0 between equal ends
        return math.nan if any(map(math.isnan, above)) else max(above)


def line(surface: Surface, a: Tree, b: Tree, ts: Sequence[float] = LINE_PLACES, progress: Progress = iter) -> Line:
    """Measure the loss along the line through two models.

    Args:
        surface: the model and the examples.
        a, b: {"params", "buffers"} of the two.
        ts: the places to measure, with 0 and 1 among them.
        progress: see `Progress`.

    Raises:
        Mistake: 0 or 1 is not among `ts`.
    """
    require("ts", list(ts), {0.0, 1.0} <= set(ts), "a list with 0 and 1, where the two models lie")
    rows = [surface.at(combine_models([a, b], [1 - t, t])) for t in progress(ts)]
    return Line(tuple(ts), _by_measure(rows), length(tree.sub(b["params"], a["params"])))


@dataclass(frozen=True)
class Plane:
    """The loss on the plane through three models.

    Attributes:
        x, y: the places, in the unit of distances between weights.
        measures: "loss", "accuracy" and so on -> its values, a row for each y.
        models: (x, y) of the three models; the first is at (0, 0), the second at y = 0.
    """

    x: Sequence[float]
    y: Sequence[float]
    measures: dict[str, list[list[float]]]
    models: tuple[tuple[float, float], tuple[float, float], tuple[float, float]]


def plane(
    surface: Surface, a: Tree, b: Tree, c: Tree, points: int = 15, margin: float = 0.25, progress: Progress = iter
) -> Plane:
    """Measure the loss on the plane through three models.

    Args:
        surface: the model and the examples.
        a, b, c: {"params", "buffers"} of the three.
        points: places in each direction.
        margin: how far the plane goes beyond the models, as a share of their extent.
        progress: see `Progress`.

    Raises:
        Mistake: the three lie on one line, or `points` is below 2.
    """
    require("points", points, points >= 2, "2 or more")
    base, along, height = _triangle(a["params"], b["params"], c["params"])
    xs = _axis([0.0, base, along], points, margin)
    ys = _axis([0.0, height], points, margin)
    # a + x u + y v = (1 - q - r) a + q b + r c with r = y / height and q = (x - r along) / base
    places = [((x - y / height * along) / base, y / height) for y in ys for x in xs]
    columns = _by_measure([surface.at(combine_models([a, b, c], [1 - q - r, q, r])) for q, r in progress(places)])
    grids = {name: [values[k : k + points] for k in range(0, len(values), points)] for name, values in columns.items()}
    return Plane(xs, ys, grids, ((0.0, 0.0), (base, 0.0), (along, height)))


def _triangle(a: Tree, b: Tree, c: Tree) -> tuple[float, float, float]:
    """Return base, along, height: a is at (0, 0), b at (base, 0), c at (along, height). Refuse three on one line."""
    first, second = tree.sub(b, a), tree.sub(c, a)
    base, side = length(first), length(second)
    along = inner(first, second) / base if base else 0.0
    height = math.sqrt(max(side**2 - along**2, 0.0))
    if not min(base, height) > 1e-4 * max(base, side):
        raise Mistake("the three models lie on one line, so they span no plane; measure the line through two of them")
    return base, along, height


def _axis(values: Sequence[float], points: int, margin: float) -> list[float]:
    """Return `points` evenly spaced places that go beyond the values on both sides, by `margin` of their extent."""
    low, high = min(values), max(values)
    start, extent = low - margin * (high - low), (1 + 2 * margin) * (high - low)
    return [start + extent * k / (points - 1) for k in range(points)]


def combine_models(models: Sequence[Tree], shares: Sequence[float]) -> Tree:
    """Return sum_k shares_k models_k, of parameters and float buffers; integer buffers are the first model's."""
    floats = [tree.floats(model) for model in models]
    total = linear_combination(floats, shares)
    return tree.merge(models[0], tree.map(lambda x, like: x.to(like.dtype), total, floats[0]))


def _by_measure(rows: Sequence[dict[str, float]]) -> dict[str, list[float]]:
    """Turn a list of measures by name into lists by name."""
    return {name: [row[name] for row in rows] for name in rows[0]}
