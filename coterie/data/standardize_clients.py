"""Standardise clients' tables that no source holds: each client has rows of its own, as in a loop in Python.

The exchange is that of `coterie.data.standardize`: three sums of each column from each client, a mean and a deviation
back. Legend: n rows, F features.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from coterie.core.errors import Mistake
from coterie.core.examples import Examples
from coterie.data.as_examples import as_clients, as_examples
from coterie.data.standardize import Scale, apply_scale, compute_scale, sum_columns


def standardize_clients(
    clients: Any, test: Any = None, columns: Sequence[int] | None = None
) -> tuple[dict[str, Examples], Examples | None, Scale]:
    """Standardise the columns of clients' tables by one mean and deviation over all clients, and fill their gaps.

    Args:
        clients: what `coterie.federate` takes: by id or in a list, each `Examples` or (x, y), with x [n, F] of floats.
            NaN are gaps, which become 0, the mean.
        test: test data, which are standardised by the clients' scale.
        columns: which to standardise; all by default. Leave out those of codes, such as 0 and 1.

    Returns:
        The clients, the test data, and the scale, for whoever applies the model later.

    Raises:
        Mistake: x is not a table of floats, the tables differ in their columns, or there is no such column.

    >>> import torch
    >>> ready, _, scale = standardize_clients({"a": (torch.tensor([[1.0], [3.0]]), torch.tensor([0, 1]))})
    >>> ready["a"].x.flatten().tolist(), scale.mean.tolist()
    ([-1.0, 1.0], [2.0])
    """
    given = {client: Examples(*each.tensors()) for client, each in as_clients(clients).items()}
    tested = None if test is None else Examples(*as_examples(test, "test").tensors())
    parts = {f'clients["{client}"]': each for client, each in given.items()}
    if tested is not None:
        parts["test"] = tested
    if not given:
        raise Mistake("there are none; give one or more", key="clients")
    features = next(iter(given.values())).x.shape[-1]
    for key, each in parts.items():
        if each.x.dim() != 2 or not each.x.is_floating_point() or each.x.shape[1] != features:
            kind = str(each.x.dtype).removeprefix("torch.")
            raise Mistake(f"x is {kind} of shape {list(each.x.shape)}; it must be floats [n, {features}]", key=key)
    chosen = list(range(features)) if columns is None else list(columns)
    if not all(0 <= column < features for column in chosen):
        raise Mistake(key="columns", value=chosen, allowed=f"numbers from 0 to {features - 1}, one for each column")
    scale = compute_scale(sum_columns(each.x, chosen) for each in given.values())
    ready = {client: Examples(apply_scale(each.x, scale, chosen), each.y) for client, each in given.items()}
    return ready, None if tested is None else Examples(apply_scale(tested.x, scale, chosen), tested.y), scale
