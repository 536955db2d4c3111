"""What stands at the coordinator in the place of the silos' rows, so that a plan can be made and checked without any.

There is one made-up example of each class. A client's rows are references to it, so that it has as many examples, of
the same labels, as at its silo; and 8 bytes for each. Nothing is ever trained on them: the coordinator's plan holds
counts alone.

Legend: C classes.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from coterie.core.errors import Mistake
from coterie.core.examples import Examples
from coterie.core.rng import generator
from coterie.data.source import Source
from coterie.experiment.silos.merge_facts import Agreement, ClientCount, Merged
from coterie.experiment.silos.own_rows import OwnExamples

_KINDS_OF_NUMBER = {str(dtype).removeprefix("torch."): dtype for dtype in (torch.float32, torch.float64, torch.int64)}
MAX_NUMBERS = 2**28
"""The size of an example, times the classes, up to which stand-ins are made."""


def make_stand_ins(merged: Merged, name: str) -> OwnExamples:
    """Return stand-ins for the rows of all silos, called `name` as the source of the experiment is.

    Raises:
        Mistake: the silos' examples are of a kind that is not known, or so large that no honest ones are.
    """
    agreement = merged.agreement
    pool = Examples(_make_inputs(agreement), _make_labels(agreement))
    clients = {c.client: pool.take(_rows(c)) for c in merged.clients}
    test = pool.take(torch.zeros(merged.test, dtype=torch.int64)) if merged.test else None
    has_own = agreement.has_own_tests
    test_groups = [c.client for c in merged.clients for _ in range(c.test)]
    test_groups += [""] * (merged.test - len(test_groups))
    source = Source(
        name,
        pool,
        test,
        agreement.num_classes,
        test_groups=test_groups if has_own else None,
        label_names=agreement.label_names,
        columns=agreement.columns,
    )
    return OwnExamples(source, clients)


def _make_inputs(agreement: Agreement) -> Tensor:
    shape = [_pool_size(agreement), *agreement.shape]
    if agreement.dtype not in _KINDS_OF_NUMBER or torch.Size(shape).numel() > MAX_NUMBERS:
        raise Mistake(
            f"the silos' examples are {agreement.dtype} of shape {list(agreement.shape)}; give float32, float64 or "
            "int64, and smaller ones"
        )
    dtype = _KINDS_OF_NUMBER[agreement.dtype]
    if not dtype.is_floating_point:  # tokens, of which every vocabulary has the first two
        return torch.arange(torch.Size(shape).numel()).remainder(2).reshape(shape)
    return torch.rand(shape, generator=generator("stand-ins"), dtype=dtype)


def _make_labels(agreement: Agreement) -> Tensor | None:
    if agreement.label_kind == "none":
        return None
    if agreement.label_dtype not in _KINDS_OF_NUMBER:
        raise Mistake(f"the silos' labels are {agreement.label_dtype}; give int64, float32 or float64")
    shape, dtype = [_pool_size(agreement), *agreement.label_shape], _KINDS_OF_NUMBER[agreement.label_dtype]
    if len(shape) == 1 and not dtype.is_floating_point:
        return torch.arange(shape[0])
    return torch.zeros(shape, dtype=dtype)


def _pool_size(agreement: Agreement) -> int:
    """Return how many stand-ins there are: one of each class where rows have one class each."""
    return agreement.num_classes or 1 if not agreement.label_shape else 1


def _rows(client: ClientCount) -> Tensor:
    """Return the stand-ins of a client's rows; rows without a class that counts refer to the first."""
    labels: Sequence[int] = client.labels or ()
    counts = torch.tensor(labels, dtype=torch.int64)
    known = torch.repeat_interleave(torch.arange(len(labels)), counts)
    return torch.cat([known, torch.zeros(client.train - len(known), dtype=torch.int64)])
