"""Data: the sources that examples come from, partitions of them among clients, and seed sets.

The names of sources, partitions and augmentations can be read without PyTorch.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from coterie.core.lazy import export_lazily
from coterie.data.augment import AUGMENTATIONS, augmentation
from coterie.data.partitions import PARTITIONS
from coterie.data.sources import SOURCES, load

if TYPE_CHECKING:
    from coterie.data.as_examples import as_examples
    from coterie.data.deal import deal, own_test
    from coterie.data.partitions.partition import Partition
    from coterie.data.source import Source
    from coterie.data.standardize import standardize
    from coterie.data.standardize_clients import standardize_clients

__all__ = [
    "AUGMENTATIONS",
    "PARTITIONS",
    "SOURCES",
    "Partition",
    "Source",
    "as_examples",
    "augmentation",
    "deal",
    "load",
    "own_test",
    "standardize",
    "standardize_clients",
]

export_lazily(
    __name__,
    {
        "Partition": "coterie.data.partitions.partition:Partition",
        "Source": "coterie.data.source:Source",
        "as_examples": "coterie.data.as_examples:as_examples",
        "deal": "coterie.data.deal:deal",
        "own_test": "coterie.data.deal:own_test",
        "standardize": "coterie.data.standardize:standardize",
        "standardize_clients": "coterie.data.standardize_clients:standardize_clients",
    },
)
