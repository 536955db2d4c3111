"""Standardising a table whose rows may not be pooled.

A client sends, for each measured column, three sums over its observed training values: how many, their sum, and the sum
of their squares. The server adds them up, and sends back mean and standard deviation. One exchange, nothing about a
single row; yet a client with one row would show it, and secure aggregation of the three sums is what hides it.

    n = sum n_i     mean = sum s_i / n     variance = sum q_i / n - mean^2     x <- (x - mean) / sqrt(variance)

A missing value becomes 0, which is the mean. Legend: n rows, F features, M measured columns.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from coterie.core.data import Clients, Examples
from coterie.core.errors import Mistake
from coterie.data.source import Source

HOW = ("federated", "local", "none")
"""What `data.standardize` may be."""


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
class Standardized:
    """A source and its clients after standardisation, and what it cost in bytes for each client, either way; `scaled`
    does the same to examples that nobody holds yet.
    """

    source: Source
    clients: Clients
    bytes_up: int
    bytes_down: int
    scaled: Callable[[Examples], Examples] = lambda examples: examples


def standardize(source: Source, clients: Clients, how: str | None = None) -> Standardized:
    """The same source and clients with their measured columns standardised and their gaps filled.

    Args:
        source: where the clients come from; its test examples are standardised with them.
        clients: what `deal` made of it.
        how: "federated": one mean and deviation over all clients' training examples. "local": each client its own, also
            for the test examples that carry its id; whatever carries none, or nobody's, goes by its own. "none": values
            stay, gaps become 0. By default federated for a table and none for anything else.

    Raises:
        Mistake: `how` is none of these, or the examples are no rows of numbers.
    """
    columns = _columns(source, how)
    chosen = how or ("federated" if source.numeric else "none")
    if not columns:
        return Standardized(source, clients, 0, 0)
    if chosen == "local":
        return _local(source, clients, columns)
    if chosen == "none":
        scale = _identity(columns)
    else:
        scale = scale_of(sums_of(e.tensors()[0], columns) for e in clients.values())
    test = None if source.test is None else _applied(source.test, scale, columns)
    train = _applied(source.train, scale, columns)
    size = 0 if chosen == "none" else 8 * len(columns)
    dealt = {c: Examples(train.x, e.y, e.rows) for c, e in clients.items()}
    ready = replace(source, train=train, test=test)
    return Standardized(ready, dealt, 3 * size, 2 * size, lambda examples: _applied(examples, scale, columns))


def sums_of(x: Tensor, columns: Sequence[int]) -> Sums:
    """The three sums over the observed values of x [n, F] in `columns`."""
    values = x[:, list(columns)].double()  # [n, M]
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
    """x [n, F] with `columns` standardised and their gaps filled with 0; the other columns stay."""
    result = x.clone()
    scaled = (x[:, list(columns)].double() - scale.mean) / scale.deviation
    result[:, list(columns)] = scaled.nan_to_num(nan=0.0).to(x.dtype)
    return result


def _columns(source: Source, how: str | None) -> list[int]:
    """The columns to act on; every column where the source does not say and the user asks for it."""
    if how is not None and how not in HOW:
        raise Mistake(f"data.standardize = {how!r}: must be one of {', '.join(HOW)}")
    if source.numeric or how in (None, "none"):
        return list(source.numeric)
    if source.clients is not None or source.train.x.dim() != 2 or not source.train.x.is_floating_point():
        raise Mistake(
            f"data.standardize = {how!r}: the source {source.name} is no table, so there is nothing to standardise; "
            "leave it out"
        )
    return list(range(source.train.x.shape[1]))


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
    return Standardized(ready, dealt, 0, 0, lambda examples: _by_itself(examples, columns))


def _by_itself(examples: Examples, columns: Sequence[int]) -> Examples:
    x, y = examples.tensors()
    return Examples(apply(x, scale_of([sums_of(x, columns)]), columns), y)


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
