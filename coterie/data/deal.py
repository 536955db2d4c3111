"""From a source to clients.

Legend: N training examples, n examples of one client.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from coterie.core.errors import Mistake
from coterie.core.examples import Clients, Examples
from coterie.core.rng import number
from coterie.data.flower import Partitioner, parts
from coterie.data.partition import OWN_ARGUMENTS, PARTITIONS, natural
from coterie.data.partition.limits import count
from coterie.data.source import Source

_BY_LABEL = {"shards", "dirichlet", "label"}


def deal(
    source: Source,
    *,
    partition: str | Partitioner | None = None,
    num_clients: int | None = None,
    shards_per_client: int = 2,
    alpha: float | None = None,
    min_examples: int = 1,
    labels_per_client: int | None = None,
    examples_per_client: int | None = None,
    rng_seed: int = 0,
) -> Clients:
    """The clients of a federation, from the training examples of `source`.

    Clients share the source's memory. What a client gets is a function of (source, partition and its own arguments, rng
    seed), and of nothing else.

    Args:
        source: the data set.
        partition: iid, shards, dirichlet, label, quantity or natural; by default natural where the source has clients
            of its own, else iid. Or a partitioner of flwr-datasets, which knows its own arguments; see
            `coterie.data.flower`.
        num_clients: how many clients; they are called "0", "1", ... A natural partition has its own number and its own
            ids.
        shards_per_client: for shards.
        alpha: for dirichlet and quantity.
        min_examples: for dirichlet and quantity.
        labels_per_client: for label.
        examples_per_client: take no more than this from each client, at random; all by default.
        rng_seed: of the partition, and of what `examples_per_client` takes.

    Raises:
        Mistake: an argument is missing or out of range, or a client would have no examples.
    """
    if partition is not None and not isinstance(partition, str):
        clients = _numbered(source, _by_partitioner(source, partition, num_clients, rng_seed))
    elif (chosen := _chosen(source, partition)) == "natural":
        clients = _natural(source, num_clients)
    else:
        labels = _labels(source, chosen)
        if num_clients is None:
            raise Mistake(
                f"data.num_clients: missing; the partition {chosen!r} needs to know how many clients to deal to"
            )
        given = {"alpha": alpha, "labels_per_client": labels_per_client}
        own = _own_arguments(chosen, given | {"shards_per_client": shards_per_client, "min_examples": min_examples})
        rng = np.random.default_rng(number("partition", int(rng_seed)))
        clients = _numbered(source, PARTITIONS[chosen](labels, count("data.num_clients", num_clients), rng, **own))
    if examples_per_client is None or source.clients is not None:  # such a source takes the number itself
        return clients
    return _at_most(clients, examples_per_client, rng_seed)


def own_test(source: Source, clients: Collection[str]) -> Clients:
    """Each client's own test examples: the test examples of `source` that carry its id.

    A client without any is left out, and so is everybody where the test examples carry no client ids.
    """
    if source.own_tests is not None:
        return source.own_tests
    if source.test is None or source.test_groups is None:
        return {}
    rows = natural(source.test_groups)
    return {c: source.test.take(torch.from_numpy(rows[c])) for c in clients if c in rows}


def _chosen(source: Source, partition: str | None) -> str:
    if partition is None:
        return "natural" if source.natural else "iid"
    if partition not in PARTITIONS:
        raise Mistake(f"data.partition = {partition!r}: must be one of {', '.join(PARTITIONS)}")
    if partition == "natural" and not source.natural:
        raise Mistake(
            f"data.partition = 'natural': the source {source.name} has no clients of its own; "
            "name data.client_column where the file has one, or choose another partition"
        )
    if partition != "natural" and source.clients is not None:
        raise Mistake(
            f"data.partition = {partition!r}: the source {source.name} makes its clients itself; leave it out"
        )
    return partition


def _numbered(source: Source, parts: Sequence[NDArray[np.int64]]) -> Clients:
    return {str(k): source.train.take(torch.from_numpy(part)) for k, part in enumerate(parts)}


def _by_partitioner(
    source: Source, partitioner: Partitioner, num_clients: int | None, rng_seed: int
) -> list[NDArray[np.int64]]:
    if source.clients is not None:
        raise Mistake(f"data.partition: the source {source.name} makes its clients itself; leave it out")
    dealt = parts(source, partitioner, rng_seed)
    if num_clients is not None and num_clients != len(dealt):
        name = type(partitioner).__name__
        raise Mistake(f"data.num_clients = {num_clients}: the partitioner {name} makes {len(dealt)}; leave it out")
    return dealt


def _natural(source: Source, num_clients: int | None) -> Clients:
    clients: Clients
    if source.clients is not None:
        clients = source.clients
    else:
        rows = natural(source.groups or [])
        clients = {c: source.train.take(torch.from_numpy(part)) for c, part in rows.items()}
    if num_clients is not None and num_clients != len(clients):
        raise Mistake(
            f"data.num_clients = {num_clients}: the source {source.name} has {len(clients)} clients of its own; "
            "leave it out, or set data.partition"
        )
    return clients


def _labels(source: Source, partition: str) -> NDArray[np.int64]:
    """The label of each training example [N]; zeros for a partition that looks at none."""
    if partition not in _BY_LABEL:
        return np.zeros(len(source.train), dtype=np.int64)
    y = source.train.y
    if y is None or y.dim() != 1 or y.is_floating_point():
        raise Mistake(
            f"data.partition = {partition!r}: needs one class label for each example, which the source {source.name} "
            "does not have; choose iid, quantity or natural"
        )
    labels: NDArray[np.int64] = (y if source.train.rows is None else y[source.train.rows]).numpy()
    return labels


def _own_arguments(partition: str, given: Mapping[str, Any]) -> dict[str, Any]:
    """The arguments that `partition` takes besides the common three, none of them missing."""
    own = {name: given[name] for name in OWN_ARGUMENTS[partition]}
    for name, value in own.items():
        if value is None:
            raise Mistake(f"data.{name}: missing; the partition {partition!r} needs it")
    return own


def _at_most(clients: Clients, examples_per_client: int, rng_seed: int) -> dict[str, Examples]:
    most = count("data.examples_per_client", examples_per_client)
    return {c: _some(examples, most, c, rng_seed) for c, examples in clients.items()}


def _some(examples: Examples, most: int, client: str, rng_seed: int) -> Examples:
    if len(examples) <= most:
        return examples
    rng = np.random.default_rng(number("examples_per_client", int(rng_seed), client))
    return examples.take(torch.from_numpy(np.sort(rng.choice(len(examples), most, replace=False))))
