"""Partitions: ways to deal a data set to clients, one per file.

To add one, write a function that returns a `Partition`, and name it in `PARTITIONS` and in docs/data.md. Its arguments
are the keys that it takes. `from coterie.data.partitions import NAME` then gives the function.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, TypeGuard

from coterie.core.lazy import export_lazily
from coterie.core.registry import Registry

if TYPE_CHECKING:
    from coterie.data.partitions.partition import Partition

FLOWER_PREFIX = "flwr:"
"""How the name of a partitioner of flwr-datasets begins: "flwr:DirichletPartitioner"."""

PARTITIONS = Registry(
    "partition",
    {
        "iid": "coterie.data.partitions.iid:iid",
        "shards": "coterie.data.partitions.shards:shards",
        "dirichlet": "coterie.data.partitions.dirichlet:dirichlet",
        "label": "coterie.data.partitions.label:label",
        "quantity": "coterie.data.partitions.quantity:quantity",
        "natural": "coterie.data.partitions.natural:natural",
    },
    more=[f'"{FLOWER_PREFIX}NAME"'],
)
"""The function that makes each partition, by the name that `deal` takes."""


def find_partition(name: str) -> Callable[..., Partition]:
    """Return the function that makes the partition called `name`, or that uses a partitioner of flwr-datasets.

    Raises:
        Mistake: there is none.
    """
    if not is_flower_name(name):
        return PARTITIONS.find(name)
    from coterie.data.partitions.flower import partition_factory

    return partition_factory(name)


def is_flower_name(partition: object) -> TypeGuard[str]:
    """Return whether `partition` names a partitioner of flwr-datasets.

    >>> is_flower_name("flwr:IidPartitioner"), is_flower_name("iid")
    (True, False)
    """
    return isinstance(partition, str) and partition.startswith(FLOWER_PREFIX)


export_lazily(__name__, PARTITIONS.places)
