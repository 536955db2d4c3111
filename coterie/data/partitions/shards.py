"""The partition shards: a few pieces of the examples sorted by label, so that most clients see only a few labels."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from coterie.core.kinds import Count
from coterie.data.argument_checks import require_count, require_enough_examples
from coterie.data.partitions.partition import NumberedPartition, Rows


def shards(shards_per_client: Count = 2) -> NumberedPartition:
    """Give every client a few shards of the examples sorted by label: the pathological split of McMahan et al.

    Sort by label (stable), cut into num_clients * shards_per_client shards as even as possible, deal the shards at
    random.

    Args:
        shards_per_client: how many shards each client holds. With MNIST, 100 clients and 2 shards, a shard has 300
            examples.

    Raises:
        Mistake: the number is below 1; or when it deals, a shard would be empty.

    Reference: McMahan et al. 2017, section 3.
    """
    arguments = {"shards_per_client": require_count("shards_per_client", shards_per_client)}
    return NumberedPartition("shards", _split_into_shards, arguments, by_label=True)


def _split_into_shards(
    labels: NDArray[np.int64], num_clients: int, rng: np.random.Generator, shards_per_client: int
) -> list[Rows]:
    require_enough_examples(len(labels), num_clients, shards_per_client, "shards_per_client")
    pieces = np.array_split(np.argsort(labels, kind="stable"), num_clients * shards_per_client)
    hands = rng.permutation(len(pieces)).reshape(num_clients, shards_per_client)
    return [np.sort(np.concatenate([pieces[s] for s in hand])) for hand in hands]
