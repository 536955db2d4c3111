"""The loss between and around models that ended training: whether they lie in one basin.

    line    w(t) = (1 - t) a + t b
    plane   w(x, y) = a + x u + y v, with u and v orthonormal and b and c on the plane

Float buffers (BatchNorm's statistics) are combined like parameters, unless the `Surface` measures them anew, as it
should: see `coterie.models.batchnorm_statistics`. The geometry is that of the parameters alone.

Chen et al. (On the Importance and Applicability of Pre-Training for Federated Learning, ICLR 2023) look at final models
that one initial model led to under different client conditions. The barrier is that of Entezari et al. (The Role of
Permutation Invariance in Linear Mode Connectivity of Neural Networks, ICLR 2022); Frankle et al. (2020) take the mean
of the ends' losses instead of the chord. The plane is that of Garipov et al. (Loss Surfaces, Mode Connectivity, and
Fast Ensembling of DNNs, NeurIPS 2018).
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Any

from coterie.core import tree
from coterie.core.errors import Mistake
from coterie.core.tree import Tree
from coterie.probes.surface import Surface
from coterie.probes.updates import inner, length, weighted

TS = tuple(k / 20 for k in range(-4, 25))
"""From -0.2 to 1.2 in steps of 0.05: both models, what lies between, and a little beyond."""

Progress = Callable[[Sequence[Any]], Iterable[Any]]
"""Goes through what is to be measured, and may show how far it has come."""


@dataclass(frozen=True)
class Line:
    """The loss along the line through two models.

    Attributes:
        t: where it was measured; 0 is the first model, 1 the second.
        measures: "loss", "accuracy" and so on -> its value at each t.
        distance: |b - a|.
    """

    t: Sequence[float]
    measures: dict[str, list[float]]
    distance: float

    @property
    def barrier(self) -> float:
        """max over 0 <= t <= 1 of loss(t) - (loss(0) + t (loss(1) - loss(0))): how far the loss rises above the
        straight chord between its ends. 0 where it never does, as where the loss is convex.

        >>> Line((-1.0, 0.0, 0.5, 1.0), {"loss": [9.0, 1.0, 4.0, 2.0]}, 1.0).barrier
        2.5
        >>> Line((0.0, 0.3, 1.0), {"loss": [0.7, 0.7, 0.7]}, 0.0).barrier
        0.0
        """
        found = {t: loss for t, loss in zip(self.t, self.measures["loss"], strict=True) if 0 <= t <= 1}
        first, last = found[0.0], found[1.0]
        above = [loss - (first + t * (last - first)) for t, loss in found.items()]  # 0 between equal ends, not nearly
        return math.nan if any(map(math.isnan, above)) else max(above)


def line(surface: Surface, a: Tree, b: Tree, ts: Sequence[float] = TS, progress: Progress = iter) -> Line:
    """The loss along the line through two models.

    Args:
        surface: the model and the examples.
        a, b: {"params", "buffers"} of the two.
        ts: where to measure; 0 and 1, where the models lie, among them.
        progress: see `Progress`.

    Raises:
        Mistake: 0 or 1 is not among `ts`.
    """
    if not {0.0, 1.0} <= set(ts):
        raise Mistake(f"ts = {list(ts)}: 0 and 1, where the two models lie, must be among them")
    found = [surface.at(combined([a, b], [1 - t, t])) for t in progress(ts)]
    return Line(tuple(ts), _columns(found), length(tree.sub(b["params"], a["params"])))


@dataclass(frozen=True)
class Plane:
    """The loss on the plane through three models.

    Attributes:
        x, y: where it was measured, in the unit of distances between weights.
        measures: "loss", "accuracy" and so on -> its values, a row for each y.
        models: (x, y) of the three; the first is (0, 0), and the second lies at y = 0.
    """

    x: Sequence[float]
    y: Sequence[float]
    measures: dict[str, list[list[float]]]
    models: tuple[tuple[float, float], tuple[float, float], tuple[float, float]]


def plane(
    surface: Surface, a: Tree, b: Tree, c: Tree, points: int = 15, margin: float = 0.25, progress: Progress = iter
) -> Plane:
    """The loss on the plane through three models.

    Args:
        surface: the model and the examples.
        a, b, c: {"params", "buffers"} of the three.
        points: so many in each direction.
        margin: how far it goes beyond the models, as a share of their extent.
        progress: see `Progress`.

    Raises:
        Mistake: the three lie on one line, or `points` is below 2.
    """
    if points < 2:
        raise Mistake(f"points = {points}: it must be 2 or more")
    base, along, height = _triangle(a["params"], b["params"], c["params"])
    xs = _spread([0.0, base, along], points, margin)
    ys = _spread([0.0, height], points, margin)
    # a + x u + y v = (1 - q - r) a + q b + r c with r = y / height and q = (x - r along) / base
    places = [((x - y / height * along) / base, y / height) for y in ys for x in xs]
    columns = _columns([surface.at(combined([a, b, c], [1 - q - r, q, r])) for q, r in progress(places)])
    grids = {name: [values[k : k + points] for k in range(0, len(values), points)] for name, values in columns.items()}
    return Plane(xs, ys, grids, ((0.0, 0.0), (base, 0.0), (along, height)))


def _triangle(a: Tree, b: Tree, c: Tree) -> tuple[float, float, float]:
    """With a at (0, 0) and b at (base, 0), c is at (along, height)."""
    first, second = tree.sub(b, a), tree.sub(c, a)
    base, side = length(first), length(second)
    along = inner(first, second) / base if base else 0.0
    height = math.sqrt(max(side**2 - along**2, 0.0))
    if not min(base, height) > 1e-4 * max(base, side):
        raise Mistake("the three models lie on one line, which spans no plane; two of them are enough for a line")
    return base, along, height


def _spread(values: Sequence[float], points: int, margin: float) -> list[float]:
    low, high = min(values), max(values)
    start, extent = low - margin * (high - low), (1 + 2 * margin) * (high - low)
    return [start + extent * k / (points - 1) for k in range(points)]


def combined(models: Sequence[Tree], shares: Sequence[float]) -> Tree:
    """sum_k shares_k models_k, parameters and float buffers; integer buffers are the first model's."""
    floats = [tree.floats(model) for model in models]
    total = weighted(floats, shares)
    return tree.merge(models[0], tree.map(lambda x, like: x.to(like.dtype), total, floats[0]))


def _columns(rows: Sequence[dict[str, float]]) -> dict[str, list[float]]:
    return {name: [row[name] for row in rows] for name in rows[0]}
