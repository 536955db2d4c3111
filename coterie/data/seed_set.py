"""A seed set: a few examples that every client holds, on which clients can compare what they predict.

Legend: S examples of the seed set, N clients, n examples of one client.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
import torch
from numpy.typing import NDArray

from coterie.core.errors import Mistake
from coterie.core.examples import Clients, Examples, pool_examples
from coterie.core.kinds import Count
from coterie.core.rng import number
from coterie.data.argument_checks import require_count


@dataclass(frozen=True)
class SeedSet:
    """A seed set, and the private data that remain.

    Attributes:
        examples: S examples, given to `coterie.federate` as `seed_set`.
        clients: each client's private data, without what it gave.
        collected: whether the examples came from the clients.
    """

    examples: Examples
    clients: Clients
    collected: bool

    @property
    def bytes_up(self) -> int:
        """The bytes that all clients together send once to collect the set."""
        return count_bytes(self.examples) if self.collected else 0

    @property
    def bytes_down(self) -> int:
        """The bytes that all clients together receive once; a client has its own part already."""
        return (len(self.clients) - int(self.collected)) * count_bytes(self.examples)

    def without_labels(self) -> SeedSet:
        """Return the seed set without labels, so that clients learn from one another's predictions alone."""
        return replace(self, examples=Examples(self.examples.x, None, self.examples.rows))


def from_clients(clients: Clients, seed_examples_per_client: Count, rng_seed: int = 0) -> SeedSet:
    """Draw a seed set, equally many examples from each client, and remove them from the clients' private data.

    A client's share is as balanced over its classes as they allow.

    Args:
        clients: their data. Class labels [n] are balanced; with other labels, examples are drawn at random.
        seed_examples_per_client: how many examples each client gives, over all classes together.
        rng_seed: decides which ones.

    Raises:
        Mistake: the number is below 1, or a client would be left without private examples.
    """
    share = require_count("seed_examples_per_client", seed_examples_per_client)
    seed_parts, private = {}, {}
    for client, examples in clients.items():
        if share >= len(examples):
            raise Mistake(
                f"client {client} holds {len(examples)} examples, and at least one must stay private; "
                f"lower it to {len(examples) - 1} or less",
                key="seed_examples_per_client",
                value=share,
            )
        rng = np.random.default_rng(number("seed set", int(rng_seed), client))
        chosen = _draw_balanced(_class_labels(examples), share, rng)
        seed_parts[client] = examples.take(torch.from_numpy(np.flatnonzero(chosen)))
        private[client] = examples.take(torch.from_numpy(np.flatnonzero(~chosen)))
    return SeedSet(pool_examples(seed_parts.values()), private, collected=True)


def from_pool(pool: Examples, examples: Count, clients: Clients, rng_seed: int = 0) -> SeedSet:
    """Draw a seed set from examples that no client holds, as balanced over their classes as they allow.

    Args:
        pool: what to draw from.
        examples: how many to draw.
        clients: their data, which stay unchanged.
        rng_seed: decides which ones.

    Raises:
        Mistake: the number is below 1, or the pool has fewer examples.
    """
    size = require_count("examples", examples)
    if size > len(pool):
        raise Mistake(f"there are {len(pool)} to draw from; ask for no more", key="examples", value=size)
    chosen = _draw_balanced(_class_labels(pool), size, np.random.default_rng(number("seed set", int(rng_seed))))
    return SeedSet(pool.take(torch.from_numpy(np.flatnonzero(chosen))), clients, collected=False)


def add_to_clients(clients: Clients, seed_set: Examples) -> dict[str, Examples]:
    """Return each client's data with the seed set added.

    An algorithm that exchanges no predictions is given these, so that it is compared on equal data.

    Raises:
        Mistake: the seed set has no labels.
    """
    if seed_set.y is None:
        raise Mistake("a seed set without labels cannot be added to clients' training data; give one with labels")
    return {client: pool_examples([examples, seed_set]) for client, examples in clients.items()}


def count_bytes(examples: Examples) -> int:
    """Return how many bytes it takes to send the examples."""
    parts = [examples.x] if examples.y is None else [examples.x, examples.y]
    return sum(len(examples) * part[:1].numel() * part.element_size() for part in parts)


def _class_labels(examples: Examples) -> NDArray[np.int64]:
    """Return a class for each example [n]; 0 for all if they do not have one class each."""
    y = examples.labels()
    if y is None or y.dim() != 1 or y.is_floating_point():
        return np.zeros(len(examples), dtype=np.int64)
    labels: NDArray[np.int64] = y.numpy()
    return labels


def _draw_balanced(labels: NDArray[np.int64], size: int, rng: np.random.Generator) -> NDArray[np.bool_]:
    """Draw `size` rows and return a mark for each row [n]; each class gives equally many, or all it has.

    The k-th of a class in random order has place k. The lowest places are drawn, with ties at random.
    """
    order = rng.permutation(len(labels))
    order = order[np.argsort(labels[order], kind="stable")]  # by class, shuffled within each
    _, starts, sizes = np.unique(labels[order], return_index=True, return_counts=True)
    place = np.arange(len(order)) - np.repeat(starts, sizes)
    drawn = np.zeros(len(labels), dtype=np.bool_)
    drawn[order[np.lexsort((rng.random(len(order)), place))[:size]]] = True
    return drawn
