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
from coterie.core.rng import number
from coterie.data.argument_checks import require_count


@dataclass(frozen=True)
class SeedSet:
    """A seed set, and what is left beside it.

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
        """What collecting the set takes, once and from all clients together."""
        return nbytes(self.examples) if self.collected else 0

    @property
    def bytes_down(self) -> int:
        """What handing it to every client takes, once and in all; a client's own part it has."""
        return (len(self.clients) - int(self.collected)) * nbytes(self.examples)

    def unlabelled(self) -> SeedSet:
        """The same without labels: clients then learn from one another's predictions alone."""
        return replace(self, examples=Examples(self.examples.x, None, self.examples.rows))


def from_clients(clients: Clients, seed_examples_per_client: int, rng_seed: int = 0) -> SeedSet:
    """A seed set that all clients contribute to alike: each gives up examples of its own, which everyone then holds.

    A client's share is as balanced over the classes it holds as these allow, and is removed from its private data.

    Args:
        clients: their data; class labels [n] are balanced, anything else is drawn at random.
        seed_examples_per_client: how many examples each gives, over all classes together.
        rng_seed: which ones.

    Raises:
        Mistake: the number is below 1, or a client would be left without private examples.
    """
    wanted = require_count("seed_examples_per_client", seed_examples_per_client)
    given, left = {}, {}
    for client, examples in clients.items():
        if wanted >= len(examples):
            raise Mistake(
                f"client {client} holds {len(examples)} examples, and at least one must stay private; "
                f"lower it to {len(examples) - 1} or less",
                key="seed_examples_per_client",
                value=wanted,
            )
        mine = _balanced(_labels(examples), wanted, np.random.default_rng(number("seed set", int(rng_seed), client)))
        given[client] = examples.take(torch.from_numpy(np.flatnonzero(mine)))
        left[client] = examples.take(torch.from_numpy(np.flatnonzero(~mine)))
    return SeedSet(pool_examples(given.values()), left, collected=True)


def from_elsewhere(examples: Examples, size: int, clients: Clients, rng_seed: int = 0) -> SeedSet:
    """A seed set of `size` examples that no client holds, as balanced over classes as `examples` allow.

    Raises:
        Mistake: the number is below 1, or there are fewer examples.
    """
    wanted = require_count("examples", size)
    if wanted > len(examples):
        raise Mistake(f"there are {len(examples)} to draw from; ask for no more", key="examples", value=wanted)
    mine = _balanced(_labels(examples), wanted, np.random.default_rng(number("seed set", int(rng_seed))))
    return SeedSet(examples.take(torch.from_numpy(np.flatnonzero(mine))), clients, collected=False)


def added(clients: Clients, seed: Examples) -> dict[str, Examples]:
    """Each client's data with the seed set among them: what an algorithm that exchanges no predictions is given, so
    that it is compared at equal data.

    Raises:
        Mistake: the seed set has no labels.
    """
    if seed.y is None:
        raise Mistake("a seed set without labels cannot be added to clients' training data; give one with labels")
    return {client: pool_examples([examples, seed]) for client, examples in clients.items()}


def nbytes(examples: Examples) -> int:
    """What the examples weigh on a wire, in bytes."""
    parts = [examples.x] if examples.y is None else [examples.x, examples.y]
    return sum(len(examples) * part[:1].numel() * part.element_size() for part in parts)


def _labels(examples: Examples) -> NDArray[np.int64]:
    """A class for each example [n]; all alike where they have no single one."""
    _, y = Examples(torch.empty(len(examples.x), 0), examples.y, examples.rows).tensors()
    if y is None or y.dim() != 1 or y.is_floating_point():
        return np.zeros(len(examples), dtype=np.int64)
    labels: NDArray[np.int64] = y.numpy()
    return labels


def _balanced(labels: NDArray[np.int64], wanted: int, rng: np.random.Generator) -> NDArray[np.bool_]:
    """Which rows [n] are taken: `wanted` in all, from each class equally many, or all of it where it has fewer.

    The k-th of a class in random order has place k; the lowest places are taken, and chance decides among equals.
    """
    order = rng.permutation(len(labels))
    order = order[np.argsort(labels[order], kind="stable")]  # by class, shuffled within each
    _, starts, sizes = np.unique(labels[order], return_index=True, return_counts=True)
    place = np.arange(len(order)) - np.repeat(starts, sizes)
    taken = np.zeros(len(labels), dtype=np.bool_)
    taken[order[np.lexsort((rng.random(len(order)), place))[:wanted]]] = True
    return taken
