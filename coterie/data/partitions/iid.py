"""The partition iid: shuffle, and cut into equal parts."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from coterie.data.argument_checks import require_enough_examples
from coterie.data.partitions.partition import NumberedPartition, Rows


def iid() -> NumberedPartition:
    """Give every client a uniformly random part of the examples; sizes differ by at most one.

    Reference: McMahan et al. 2017, section 3.
    """
    return NumberedPartition("iid", _split_at_random)


def _split_at_random(labels: NDArray[np.int64], num_clients: int, rng: np.random.Generator) -> list[Rows]:
    require_enough_examples(len(labels), num_clients)
    return [np.sort(part) for part in np.array_split(rng.permutation(len(labels)), num_clients)]
