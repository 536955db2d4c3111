"""Standardise data that may not be pooled: the measured columns of a table, or the channels of pictures.

A client sends, for each column, three sums over its observed training values: their number, their sum, and the sum of
their squares. The server adds them up, and sends back mean and standard deviation. There is one exchange, and it
reveals no single row, except that of a client with one row; secure aggregation of the three sums would hide it.

    n = sum n_i     mean = sum s_i / n     variance = sum q_i / n - mean^2     x <- (x - mean) / sqrt(variance)

A missing value becomes 0, which is the mean. In pictures each pixel is a value of its channel, and "column" below means
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

STANDARDIZATIONS = ("federated", "local", "none")
"""The ways to standardise, besides numbers that everyone knows."""

Standardization = str | Mapping[str, Sequence[float]]
"""One of `STANDARDIZATIONS`, or {"mean": [...], "deviation": [...]} with a number for each column."""


@dataclass(frozen=True)
class Sums:
    """A client's message: for each measured column the count, the sum and the sum of squares, float64 [M] each."""

    count: Tensor
    total: Tensor
    squares: Tensor

    def __add__(self, other: Sums) -> Sums:
        return Sums(self.count + other.count, self.total + other.total, self.squares + other.squares)


@dataclass(frozen=True)
class Scale:
    """Mean and standard deviation of each measured column, float64 [M]; 0 and 1 for a column without values."""

    mean: Tensor
    deviation: Tensor


@dataclass(frozen=True)
class Scaling:
    """How to standardise examples that no client holds.

    Attributes:
        columns: those that are standardised; if there are none, examples stay unchanged.
        scale: their mean and deviation; None if each set of examples is standardised by its own.
    """

    columns: Sequence[int] = ()
    scale: Scale | None = None

    def __call__(self, examples: Examples) -> Examples:
        """Return the examples standardised, with their gaps filled."""
        if not self.columns:
            return examples
        if self.scale is not None:
            return _standardize_examples(examples, self.scale, self.columns)
        x, y = examples.tensors()
        return Examples(apply_scale(x, compute_scale([sum_columns(x, self.columns)]), self.columns), y)


@dataclass(frozen=True)
class Standardized:
    """A source and its clients after standardisation.

    Attributes:
        source: with its examples standardised.
        clients: with their examples standardised.
        bytes_up: what each client sent for it.
        bytes_down: what each client received for it.
        scaling: how to standardise later examples.
    """

    source: Source
    clients: Clients
    bytes_up: int
    bytes_down: int
    scaling: Scaling = Scaling()


def standardize(source: Source, clients: Clients, how: Standardization | None = None) -> Standardized:
    """Standardise the columns of a source and its clients, and fill their gaps.

    Args:
        source: where the clients come from; its test examples are standardised with them.
        clients: what `deal` made of it.
        how: "federated": one mean and deviation over all clients' training examples. "local": each client's own, also
            for the test examples that carry its id; test examples of no client have their own, all together. "none":
            values stay unchanged, gaps become 0. Or means and deviations that everyone knows, which nobody has to send.
            By default federated for a table and none for anything else.

    Raises:
        Mistake: `how` is not one of these, or the examples are neither rows of numbers nor pictures.
    """
    columns = choose_columns(source, how)
    chosen = how or ("federated" if source.numeric else "none")
    if not columns:
        return Standardized(source, clients, 0, 0)
    if any(each.x is not source.train.x for each in clients.values()):
        sentence = "they are not those that coterie.data.deal made of the source; use coterie.data.standardize_clients"
        raise Mistake(sentence, key="clients")
    if chosen == "local":
        return _standardize_locally(source, clients, columns)
    if chosen == "none":
        scale = _identity_scale(columns)
    elif isinstance(chosen, Mapping):
        scale = _parse_scale(chosen, len(columns))
    else:
        scale = compute_scale(sum_columns(e.tensors()[0], columns) for e in clients.values())
    size = 8 * len(columns) if chosen == "federated" else 0
    return standardize_by(source, clients, columns, scale, size)


def standardize_by(
    source: Source, clients: Clients, columns: Sequence[int], scale: Scale, size: int = 0
) -> Standardized:
    """Standardise the columns of a source and its clients by a scale, and fill their gaps.

    Args:
        source, clients: see `standardize`; the clients share the source's training examples.
        columns: which.
        scale: mean and deviation of each.
        size: the bytes of one sum, or of one number of the scale, over all columns; 0 where nothing was exchanged.
    """
    train = _standardize_examples(source.train, scale, columns)
    test = source.test
    if test is not None:
        shared = test.x is source.train.x
        test = Examples(train.x, test.y, test.rows) if shared else _standardize_examples(test, scale, columns)
    dealt = {c: Examples(train.x, e.y, e.rows) for c, e in clients.items()}
    ready = replace(source, train=train, test=test)
    return Standardized(ready, dealt, 3 * size, 2 * size, Scaling(columns, scale))


def sum_columns(x: Tensor, columns: Sequence[int]) -> Sums:
    """Return the three sums over the observed values of x [n, F] or [n, C, H, W] in `columns`."""
    rows = x.movedim(1, -1).flatten(0, -2)  # [n, F], or a row for each pixel
    values = rows[:, list(columns)].double()  # [n, M]
    observed = ~values.isnan()
    values = values.nan_to_num(nan=0.0)
    return Sums(observed.sum(0).double(), values.sum(0), (values * values).sum(0))


def compute_scale(sums: Iterable[Sums]) -> Scale:
    """Return mean and deviation from the clients' sums; a column that does not vary has deviation 1."""
    first, *others = sums
    total = sum(others, start=first)
    n = total.count.clamp(min=1)
    mean = total.total / n
    variance = total.squares / n - mean * mean
    # The variance is the difference of two nearly equal numbers: below their rounding error it means nothing.
    varies = variance > 1e-14 * (total.squares / n)
    return Scale(mean, torch.where(varies, variance, 1.0).sqrt())


def apply_scale(x: Tensor, scale: Scale, columns: Sequence[int]) -> Tensor:
    """Return x [n, F] or [n, C, H, W] with `columns` standardised and their gaps filled with 0."""
    if x.dim() == 4:
        shape = (1, -1, 1, 1)
        return (x - scale.mean.to(x.dtype).reshape(shape)).div_(scale.deviation.to(x.dtype).reshape(shape))
    result = x.clone()
    scaled = (x[:, list(columns)].double() - scale.mean) / scale.deviation
    result[:, list(columns)] = scaled.nan_to_num(nan=0.0).to(x.dtype)
    return result


def choose_columns(source: Source, how: Standardization | None) -> list[int]:
    """Return the columns to standardise: the measured ones of a table; or all, if the user asks for it.

    Raises:
        Mistake: see `standardize`.
    """
    if isinstance(how, str) and how not in STANDARDIZATIONS:
        allowed = f"one of {', '.join(STANDARDIZATIONS)}, or a table of mean and deviation"
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


def _parse_scale(given: Mapping[str, Sequence[float]], number: int) -> Scale:
    """Return the scale that everyone knows, and refuse it unless it fits `number` columns."""
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


def _identity_scale(columns: Sequence[int]) -> Scale:
    return Scale(torch.zeros(len(columns), dtype=torch.float64), torch.ones(len(columns), dtype=torch.float64))


def _standardize_examples(examples: Examples, scale: Scale, columns: Sequence[int]) -> Examples:
    return Examples(apply_scale(examples.x, scale, columns), examples.y, examples.rows)


def _standardize_locally(source: Source, clients: Clients, columns: Sequence[int]) -> Standardized:
    """Standardise each client by its own scale; in the pool that clients share, each row by that of its client."""
    scales = {c: compute_scale([sum_columns(e.tensors()[0], columns)]) for c, e in clients.items()}
    x = apply_scale(source.train.x, _identity_scale(columns), columns)  # fills the rows that nobody holds too
    for c, examples in clients.items():
        rows = slice(None) if examples.rows is None else examples.rows
        x[rows] = apply_scale(examples.x[rows], scales[c], columns)
    dealt = {c: Examples(x, e.y, e.rows) for c, e in clients.items()}
    train = Examples(x, source.train.y, source.train.rows)
    ready = replace(source, train=train, test=_standardize_test_locally(source, scales, columns))
    return Standardized(ready, dealt, 0, 0, Scaling(columns))


def _standardize_test_locally(source: Source, scales: Mapping[str, Scale], columns: Sequence[int]) -> Examples | None:
    """Standardise test examples by their clients' scales, and those of no client by their own, all together."""
    if source.test is None:
        return None
    x, y = source.test.tensors()
    ids = source.test_groups or [""] * len(x)
    owners: dict[str | None, list[int]] = {}
    for row, client in enumerate(ids):
        owners.setdefault(client if client in scales else None, []).append(row)
    result = x.clone()
    for c, rows in owners.items():
        scale = scales[c] if c is not None else compute_scale([sum_columns(x[rows], columns)])
        result[rows] = apply_scale(x[rows], scale, columns)
    return Examples(result, y)
