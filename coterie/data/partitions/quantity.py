"""The partition quantity: clients of unequal size with the same kind of content."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from coterie.core.kinds import Count, Positive
from coterie.data.argument_checks import require_concentration, require_count, require_enough_examples
from coterie.data.partitions.dirichlet import draw_proportions
from coterie.data.partitions.partition import NumberedPartition, Rows


def quantity(alpha: Positive, min_examples: Count = 1) -> NumberedPartition:
    """Give clients IID content in sizes drawn from a Dirichlet distribution.

    n_i = min_examples + q_i (N - num_clients min_examples), q ~ Dirichlet(alpha, ..., alpha).

    Departure from Li et al.: they draw q again until the smallest client is large enough, which never ends for many
    clients and a small alpha. Here every client first gets `min_examples`, and the proportions apply to the rest.

    Args:
        alpha: concentration, above 0.
        min_examples: the least number of examples of a client, 1 or more.

    Raises:
        Mistake: an argument is out of range; or when it deals, there are too few examples.

    Reference: Li, Diao, Chen, He 2022 (arXiv 2102.02079), section 4.3.
    """
    arguments = {
        "alpha": require_concentration(alpha),
        "min_examples": require_count("min_examples", min_examples),
    }
    return NumberedPartition("quantity", _split_by_size, arguments)


def _split_by_size(
    labels: NDArray[np.int64], num_clients: int, rng: np.random.Generator, alpha: float, min_examples: int
) -> list[Rows]:
    """Return random parts of the examples, in sizes drawn from Dirichlet(alpha, ..., alpha)."""
    require_enough_examples(len(labels), num_clients, min_examples, "min_examples")
    spare = len(labels) - num_clients * min_examples
    share = np.cumsum(draw_proportions(rng, alpha, num_clients, 1)[0])[:-1]
    ends = np.rint(np.minimum(share, 1) * spare).astype(np.int64) + min_examples * np.arange(1, num_clients)
    return [np.sort(part) for part in np.split(rng.permutation(len(labels)), ends)]
