"""Deal a source to clients.

Legend: N training examples, n examples of one client.
"""

from __future__ import annotations

import inspect
from collections.abc import Collection, Mapping
from typing import Any

import numpy as np
import torch

from coterie.core.errors import Mistake
from coterie.core.examples import Clients, Examples
from coterie.core.kinds import Count
from coterie.core.rng import number
from coterie.core.toml_text import toml_text
from coterie.data.argument_checks import require_count, require_known_arguments
from coterie.data.partitions import PARTITIONS, find_partition
from coterie.data.partitions.flower import Partitioner, wrap_partitioner
from coterie.data.partitions.natural import rows_by_client
from coterie.data.partitions.partition import Partition
from coterie.data.source import Source


def deal(
    source: Source,
    *,
    partition: str | Partition | Partitioner | None = None,
    num_clients: Count | None = None,
    examples_per_client: Count | None = None,
    rng_seed: int = 0,
    **arguments: Any,
) -> Clients:
    """Deal the training examples of `source` to the clients of a federation.

    Clients share the source's memory. What a client gets is a function of the source, the partition and its own
    arguments, and the rng seed.

    Args:
        source: the data set.
        partition: a partition, such as `dirichlet(alpha=0.3)`; or its name: iid, shards, dirichlet, label, quantity,
            natural, or "flwr:NAME" for a partitioner of flwr-datasets; or such a partitioner itself. By default natural
            where the source has clients of its own, else iid.
        num_clients: how many clients; they are called "0", "1", ... A natural partition has its own number and its own
            ids.
        examples_per_client: take at most this many from each client, at random; all by default.
        rng_seed: of the partition, and of what `examples_per_client` takes.
        arguments: the partition's own arguments where it is given by name, such as `alpha`; see the function of that
            name in `coterie.data.partitions`. Arguments of another partition, or None, are ignored, so that one call
            serves several partitions.

    Raises:
        Mistake: an argument is missing or out of range, or a client would have no examples.
    """
    chosen = _choose_partition(source, partition, arguments)
    if source.clients is not None:
        if chosen.name != "natural":
            raise Mistake(
                f"the source {source.name} makes its clients itself; leave it out", key="partition", value=chosen.name
            )
        clients = source.clients
    else:
        rows = chosen.deal(source, num_clients, rng_seed)
        clients = {client: source.train.take(torch.from_numpy(part)) for client, part in rows.items()}
    if num_clients is not None and num_clients != len(clients):
        raise Mistake(
            f"the source {source.name} has {len(clients)} clients of its own; leave it out, or set `partition`",
            key="num_clients",
            value=num_clients,
        )
    if examples_per_client is None or source.clients is not None:  # such a source takes the number itself
        return clients
    return _limit_examples(clients, examples_per_client, rng_seed)


def own_test(source: Source, clients: Collection[str]) -> Clients:
    """Return each client's own test examples: the test examples of `source` that carry its id.

    A client without any is left out. Nothing is returned where the test examples carry no client ids.
    """
    if source.own_tests is not None:
        return source.own_tests
    if source.test is None or source.test_groups is None:
        return {}
    rows = rows_by_client(source.test_groups)
    return {c: source.test.take(torch.from_numpy(rows[c])) for c in clients if c in rows}


def _choose_partition(
    source: Source, partition: str | Partition | Partitioner | None, arguments: Mapping[str, Any]
) -> Partition:
    """Return the partition that the arguments of `deal` describe; by default the data's own clients, or iid."""
    given = {key: value for key, value in arguments.items() if value is not None}
    if isinstance(partition, str | None):
        name = partition or ("natural" if source.natural else "iid")
        return _make_partition(name, given)
    if given:
        key, value = next(iter(given.items()))
        raise Mistake("give it to the partition itself", key=key, value=value)
    if isinstance(partition, Partition):
        return partition
    if hasattr(partition, "load_partition"):
        return wrap_partitioner(partition)
    raise Mistake(
        key="partition",
        value=partition,
        allowed=f"{PARTITIONS.offer()}, or a Partition, or a partitioner of flwr-datasets",
    )


def _make_partition(name: str, given: Mapping[str, Any]) -> Partition:
    """Make the partition called `name` from those of `given` that it takes; refuse what no partition takes."""
    make = find_partition(name)
    own = inspect.signature(make).parameters
    others = {key for other in PARTITIONS.values() for key in inspect.signature(other).parameters}
    require_known_arguments(make, f"the partition {toml_text(name)}", given, also=others)
    return make(**{key: value for key, value in given.items() if key in own})


def _limit_examples(clients: Clients, examples_per_client: int, rng_seed: int) -> dict[str, Examples]:
    most = require_count("examples_per_client", examples_per_client)
    return {c: _draw_examples(examples, most, c, rng_seed) for c, examples in clients.items()}


def _draw_examples(examples: Examples, most: int, client: str, rng_seed: int) -> Examples:
    """Return `most` examples at random, by client and seed, or all if there are no more."""
    if len(examples) <= most:
        return examples
    rng = np.random.default_rng(number("examples_per_client", int(rng_seed), client))
    return examples.take(torch.from_numpy(np.sort(rng.choice(len(examples), most, replace=False))))
