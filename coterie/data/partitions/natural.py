"""The partition natural: the clients that the data come with, such as a hospital, a writer, a role in a play."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from coterie.core.errors import Mistake
from coterie.data.partitions.partition import Partition, Rows

if TYPE_CHECKING:
    from coterie.data.source import Source


@dataclass(frozen=True)
class NaturalPartition(Partition):
    """A partition by the client id of each example."""

    name: str = "natural"

    def deal(self, source: Source, num_clients: int | None, rng_seed: int) -> dict[str, Rows]:
        """Return the rows of each client that the source names; see `Partition.deal`."""
        if source.groups is None:
            raise Mistake(
                f"the source {source.name} has no clients of its own; name `client_column` where the file has one, "
                "or choose another partition",
                key="partition",
                value=self.name,
            )
        return rows_by_client(source.groups)


def natural() -> NaturalPartition:
    """Give every client the examples that carry its id."""
    return NaturalPartition()


def rows_by_client(ids: Sequence[str]) -> dict[str, Rows]:
    """Return the examples of each client, in sorted order of the ids, from the client id of each example [N].

    >>> rows_by_client(["b", "a", "b"])
    {'a': array([1]), 'b': array([0, 2])}
    """
    names, group = np.unique(np.asarray(ids, dtype=np.str_), return_inverse=True)
    order = np.argsort(group, kind="stable")
    parts = np.split(order, np.cumsum(np.bincount(group, minlength=len(names)))[:-1])
    return dict(zip(names.tolist(), parts, strict=True)) if len(names) else {}
