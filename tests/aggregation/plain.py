"""The rules once more, slowly and from their formulas alone: an oracle that is always at hand."""

from itertools import combinations
from math import ceil
from statistics import median as middle

import numpy as np

Rows = list[np.ndarray]


def distance(a: np.ndarray, b: np.ndarray) -> float:
    return float(np.sqrt(((a - b) ** 2).sum()))


def by_coordinate(rows: Rows, rule) -> np.ndarray:
    return np.array([rule([float(row[k]) for row in rows]) for k in range(len(rows[0]))])


def median(rows: Rows) -> np.ndarray:
    return by_coordinate(rows, middle)


def trimmed_mean(rows: Rows, f: int) -> np.ndarray:
    return by_coordinate(rows, lambda v: sum(sorted(v)[f : len(v) - f]) / (len(v) - 2 * f))


def meamed(rows: Rows, f: int) -> np.ndarray:
    def rule(v: list[float]) -> float:
        m = middle(v)
        return sum(sorted(v, key=lambda value: abs(value - m))[: len(v) - f]) / (len(v) - f)

    return by_coordinate(rows, rule)


def scores(rows: Rows, k: int) -> list[float]:
    return [sum(sorted(distance(a, b) ** 2 for j, b in enumerate(rows) if j != i)[:k]) for i, a in enumerate(rows)]


def multi_krum(rows: Rows, m: int, k: int) -> np.ndarray:
    s = scores(rows, k)
    return np.mean([rows[i] for i in sorted(range(len(rows)), key=lambda i: s[i])[:m]], axis=0)


def mda(rows: Rows, f: int) -> np.ndarray:
    def diameter(rows_in_set: tuple[int, ...]) -> float:
        return max((distance(rows[i], rows[j]) for i, j in combinations(rows_in_set, 2)), default=0.0)

    return np.mean([rows[i] for i in min(combinations(range(len(rows)), len(rows) - f), key=diameter)], axis=0)


def geometric_median(rows: Rows, smoothing: float, iterations: int) -> np.ndarray:
    z = np.zeros_like(rows[0])
    for _ in range(iterations):
        b = [1 / max(distance(row, z), smoothing) for row in rows]
        z = sum(bi * row for bi, row in zip(b, rows, strict=True)) / sum(b)
    return z


def centred_clipping(rows: Rows, radius: float, iterations: int) -> np.ndarray:
    v = np.zeros_like(rows[0])
    for _ in range(iterations):
        v = v + sum((row - v) * min(1, radius / distance(row, v)) for row in rows) / len(rows)
    return v


def nnm(rows: Rows, f: int) -> Rows:
    return [np.mean(sorted(rows, key=lambda other: distance(row, other))[: len(rows) - f], axis=0) for row in rows]


def clip(rows: Rows, length: float) -> Rows:
    return [min(1.0, length / float(np.linalg.norm(row))) * row for row in rows]


def arc(rows: Rows, f: int) -> Rows:
    n = len(rows)
    return clip(rows, sorted((float(np.linalg.norm(row)) for row in rows), reverse=True)[2 * f * (n - f) // n])


def buckets(n: int, f: int) -> int:
    """The largest size of which ceil(n / s) > 2 f."""
    return max(s for s in range(1, n + 1) if ceil(n / s) > 2 * f)
