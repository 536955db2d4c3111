"""Standardising data that may not be pooled: the measured columns of a table, or the channels of pictures.

A client sends, for each column, three sums over its observed training values: how many, their sum, and the sum of their
squares. The server adds them up, and sends back mean and standard deviation. One exchange, nothing about a single row;
yet a client with one row would show it, and secure aggregation of the three sums is what hides it.

    n = sum n_i     mean = sum s_i / n     variance = sum q_i / n - mean^2     x <- (x - mean) / sqrt(variance)

A missing value becomes 0, which is the mean. Of pictures each pixel is a value of its channel, and a column below is a
channel. Legend: n rows, F features, M measured columns, C channels.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from coterie.core.errors import Mistake
from coterie.core.examples import Clients, Examples
from coterie.data.source import Source

HOW = ("federated", "local", "none")
"""What `data.standardize` may be, but for numbers that everyone knows."""

How = str | Mapping[str, Sequence[float]]
"""One of `HOW`, or {"mean": [...], "deviation": [...]}, a number for each column."""


@dataclass(frozen=True)
class Sums:
    """What a client sends: for each measured column the count, the sum and the sum of squares, float64 [M] each."""

    count: Tensor
    total: Tensor
    squares: Tensor

    def __add__(self, other: Sums) -> Sums:
        return Sums(self.count + other.count, self.total + other.total, self.squares + other.squares)


@dataclass(frozen=True)
class Scale:
    """Mean and standard deviation of each measured column, float64 [M]; 0 and 1 where nothing was observed."""

    mean: Tensor
    deviation: Tensor


@dataclass(frozen=True)
class Scaling:
    """What standardising does to examples that no client holds.

    Attributes:
        columns: those that are standardised; where there are none, examples stay as they are.
        scale: theirs, or None: examples go by their own.
    """

    columns: Sequence[int] = ()
    scale: Scale | None = None

    def __call__(self, examples: Examples) -> Examples:
        """The examples standardised, their gaps filled."""
        if not self.columns:
            return examples
        if self.scale is not None:
            return _applied(examples, self.scale, self.columns)
        x, y = examples.tensors()
        return Examples(apply(x, scale_of([sums_of(x, self.columns)]), self.columns), y)


@dataclass(frozen=True)
class Standardized:
    """A source and its clients after standardisation, what it cost in bytes for each client, either way, and how it is
    done to examples that come later.
    """

    source: Source
    clients: Clients
    bytes_up: int
    bytes_down: int
    scaling: Scaling = Scaling()


def standardize(source: Source, clients: Clients, how: How | None = None) -> Standardized:
    """The same source and clients with their columns standardised and their gaps filled.

    Args:
        source: where the clients come from; its test examples are standardised with them.
        clients: what `deal` made of it.
        how: "federated": one mean and deviation over all clients' training examples. "local": each client its own, also
            for the test examples that carry its id; whatever carries none, or nobody's, goes by its own. "none": values
            stay, gaps become 0. Or means and deviations that everyone knows, which nobody has to send. By default
            federated for a table and none for anything else.

    Raises:
        Mistake: `how` is none of these, or the examples are neither rows of numbers nor pictures.
    """
    columns = _columns(source, how)
    chosen = how or ("federated" if source.numeric else "none")
    if not columns:
        return Standardized(source, clients, 0, 0)
    if chosen == "local":
        return _local(source, clients, columns)
    if chosen == "none":
        scale = _identity(columns)
    elif isinstance(chosen, Mapping):
        scale = _known(chosen, len(columns))
    else:
        scale = scale_of(sums_of(e.tensors()[0], columns) for e in clients.values())
    train = _applied(source.train, scale, columns)
    test = source.test
    if test is not None:
        shared = test.x is source.train.x
        test = Examples(train.x, test.y, test.rows) if shared else _applied(test, scale, columns)
    size = 8 * len(columns) if chosen == "federated" else 0
    dealt = {c: Examples(train.x, e.y, e.rows) for c, e in clients.items()}
    ready = replace(source, train=train, test=test)
    return Standardized(ready, dealt, 3 * size, 2 * size, Scaling(columns, scale))


def sums_of(x: Tensor, columns: Sequence[int]) -> Sums:
    """The three sums over the observed values of x [n, F] or [n, C, H, W] in `columns`."""
    rows = x.movedim(1, -1).flatten(0, -2)  # [n, F], or a row for each pixel
    values = rows[:, list(columns)].double()  # [n, M]
    observed = ~values.isnan()
    values = values.nan_to_num(nan=0.0)
    return Sums(observed.sum(0).double(), values.sum(0), (values * values).sum(0))


def scale_of(sums: Iterable[Sums]) -> Scale:
    """Mean and deviation from the clients' sums. A column that does not vary has deviation 1."""
    first, *others = sums
    whole = sum(others, start=first)
    n = whole.count.clamp(min=1)
    mean = whole.total / n
    variance = whole.squares / n - mean * mean
    # The difference of two nearly equal numbers: below their rounding error it means nothing.
    varies = variance > 1e-14 * (whole.squares / n)
    return Scale(mean, torch.where(varies, variance, 1.0).sqrt())


def apply(x: Tensor, scale: Scale, columns: Sequence[int]) -> Tensor:
    """x [n, F] or [n, C, H, W] with `columns` standardised and their gaps filled with 0; the other columns stay."""
    if x.dim() == 4:
        shape = (1, -1, 1, 1)
        return (x - scale.mean.to(x.dtype).reshape(shape)).div_(scale.deviation.to(x.dtype).reshape(shape))
    result = x.clone()
    scaled = (x[:, list(columns)].double() - scale.mean) / scale.deviation
    result[:, list(columns)] = scaled.nan_to_num(nan=0.0).to(x.dtype)
    return result


def _columns(source: Source, how: How | None) -> list[int]:
    """The columns to act on; every one where the source does not say and the user asks for it."""
    if isinstance(how, str) and how not in HOW:
        allowed = f"one of {', '.join(HOW)}, or a table of mean and deviation"
        raise Mistake(key="standardize", value=how, allowed=allowed)
    if source.numeric or how in (None, "none"):
        return list(source.numeric)
    x = source.train.x
    if source.clients is not None or x.dim() not in (2, 4) or not x.is_floating_point():
        raise Mistake(
            f"the source {source.name} has neither a table nor pictures to standardise, or makes its clients on "
            "demand; leave it out",
            key="standardize",
            value=how,
        )
    return list(range(x.shape[1]))


def _known(given: Mapping[str, Sequence[float]], number: int) -> Scale:
    """The scale that everyone knows.

    Raises:
        Mistake: it is not a mean and a deviation above 0 for each of `number` columns.
    """
    mean, deviation = given.get("mean", ()), given.get("deviation", ())
    finite = all(math.isfinite(value) for value in (*mean, *deviation))
    if given.keys() != {"mean", "deviation"} or not len(mean) == len(deviation) == number or not finite:
        raise Mistake(
            key="standardize",
            value=dict(given),
            allowed=f"{{mean = [...], deviation = [...]}}, each with {number} numbers, one for each column of a table "
            "or channel of pictures",
        )
    if min(deviation) <= 0:
        raise Mistake(key="standardize.deviation", value=list(deviation), allowed="numbers above 0")
    return Scale(torch.tensor(mean, dtype=torch.float64), torch.tensor(deviation, dtype=torch.float64))


def _identity(columns: Sequence[int]) -> Scale:
    return Scale(torch.zeros(len(columns), dtype=torch.float64), torch.ones(len(columns), dtype=torch.float64))


def _applied(examples: Examples, scale: Scale, columns: Sequence[int]) -> Examples:
    return Examples(apply(examples.x, scale, columns), examples.y, examples.rows)


def _local(source: Source, clients: Clients, columns: Sequence[int]) -> Standardized:
    """Each client by its own scale; the pool that the clients share is written once, row by row's owner."""
    scales = {c: scale_of([sums_of(e.tensors()[0], columns)]) for c, e in clients.items()}
    x = apply(source.train.x, _identity(columns), columns)  # rows that were dealt to nobody are filled too
    for c, examples in clients.items():
        rows = slice(None) if examples.rows is None else examples.rows
        x[rows] = apply(examples.x[rows], scales[c], columns)
    dealt = {c: Examples(x, e.y, e.rows) for c, e in clients.items()}
    train = Examples(x, source.train.y, source.train.rows)
    ready = replace(source, train=train, test=_local_test(source, scales, columns))
    return Standardized(ready, dealt, 0, 0, Scaling(columns))


def _local_test(source: Source, scales: Mapping[str, Scale], columns: Sequence[int]) -> Examples | None:
    if source.test is None:
        return None
    x, y = source.test.tensors()
    ids = source.test_groups or [""] * len(x)
    owners: dict[str | None, list[int]] = {}
    for row, claimed in enumerate(ids):
        owners.setdefault(claimed if claimed in scales else None, []).append(row)
    result = x.clone()
    for c, rows in owners.items():
        scale = scales[c] if c is not None else scale_of([sums_of(x[rows], columns)])
        result[rows] = apply(x[rows], scale, columns)
    return Examples(result, y)
