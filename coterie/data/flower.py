"""Partitioners of the package flwr-datasets (Flower).

A partitioner deals the rows of a table of the package `datasets`. Here it is given a table of row numbers, with the
column "label", the column "client" where the data have clients of their own, and the features by name where the source
is a table; the row numbers in what it gives back say who holds what. So it deals any source, and copies no example.

As `FederatedDataset` does, rows are shuffled before. flwr-datasets is imported here and nowhere else, when it is used.
Legend: N training examples.
"""

from __future__ import annotations

import copy
import inspect
import logging
import warnings
from collections.abc import Mapping
from typing import Any, Protocol, TypeGuard

import numpy as np
from numpy.typing import NDArray

from coterie.core.errors import Mistake, reason
from coterie.core.packages import package
from coterie.core.rng import number
from coterie.data import huggingface
from coterie.data.source import Source

log = logging.getLogger(__name__)

PREFIX = "flwr:"
"""How `data.partition` begins when it names a partitioner of flwr-datasets: "flwr:DirichletPartitioner"."""

_ROW = "number of the row"
_OURS = ("num_partitions", "seed")  # num_clients, and a function of the rng seed


class Partitioner(Protocol):
    """What of a partitioner is used."""

    dataset: Any

    @property
    def num_partitions(self) -> int:
        """How many clients there are."""

    def is_dataset_assigned(self) -> bool:
        """Whether it has a data set."""

    def load_partition(self, partition_id: int) -> Any:
        """The rows of one of them."""


def named(partition: object) -> TypeGuard[str]:
    """Whether `data.partition` names a partitioner of flwr-datasets.

    >>> named("flwr:IidPartitioner"), named("iid")
    (True, False)
    """
    return isinstance(partition, str) and partition.startswith(PREFIX)


def find(partition: str) -> type[Any]:
    """The class that `data.partition` names behind `PREFIX`.

    Raises:
        Mistake: flwr-datasets is not installed, or has no such class, or one that deals no rows or cannot be described
            in a file.
    """
    module = package("flwr_datasets.partitioner", f'data.partition = "{partition}"', "flower-datasets")
    known = [name for name in module.__all__ if _usable(getattr(module, name))]
    name = partition.removeprefix(PREFIX)
    if name not in known:
        raise Mistake(
            f'data.partition = "{partition}": after {PREFIX} it must be one of {", ".join(known)}; '
            "any other partitioner can be given from Python"
        )
    found: type[Any] = getattr(module, name)
    return found


def _usable(kind: type[Any]) -> bool:
    """Whether a partitioner deals rows, and is made from values that a file can hold."""
    vertical = kind.__name__.startswith("Vertical")
    kinds = [str(p.annotation) for p in inspect.signature(kind).parameters.values()]
    return not inspect.isabstract(kind) and not vertical and not any("Callable" in k for k in kinds)


def own_arguments(partition: str) -> dict[str, Any]:
    """What the partitioner named by `data.partition` takes besides the number of clients and a seed, with its defaults;
    `inspect.Parameter.empty` for what must be given. `partition_by` is the label unless given.

    Raises:
        Mistake: there is no such partitioner.
    """
    parameters = inspect.signature(find(partition)).parameters
    taken = {name: p.default for name, p in parameters.items() if name not in _OURS}
    return taken | ({"partition_by": "label"} if "partition_by" in taken else {})


def partitioner(partition: str, num_clients: int | None, rng_seed: int, given: Mapping[str, Any]) -> Partitioner:
    """The partitioner named by `data.partition`, with the values `given` of its own arguments.

    Raises:
        Mistake: there is no such partitioner, or it refuses a value.
    """
    kind = find(partition)
    parameters = inspect.signature(kind).parameters
    arguments = {k: _array(v, str(parameters[k].annotation)) for k, v in given.items()}
    if "num_partitions" in parameters:
        if num_clients is None:
            raise Mistake(f'data.num_clients: missing; the partition "{partition}" needs to know how many clients')
        arguments["num_partitions"] = num_clients
    if "seed" in parameters:
        arguments["seed"] = number("flower partition", int(rng_seed))
    try:
        made: Partitioner = kind(**arguments)
    except (ValueError, TypeError) as error:
        raise _refused(kind.__name__, error) from error
    return made


def _array(value: Any, annotation: str) -> Any:
    """A list as the array that some arguments must be."""
    return np.asarray(value) if "NDArray" in annotation and "list" not in annotation else value


def parts(source: Source, partitioner: Partitioner, rng_seed: int = 0) -> list[NDArray[np.int64]]:
    """The rows of each client among the training examples of `source`, ascending.

    The partitioner itself is left as it is, so it may be used again.

    Args:
        partitioner: one of flwr-datasets, that has no data set yet.
        rng_seed: of the order in which it is given the rows.

    Raises:
        Mistake: it has a data set already, cannot deal this one, or leaves a client without examples.
    """
    name = type(partitioner).__name__
    if partitioner.is_dataset_assigned():
        raise Mistake(f"data.partition: the partitioner {name} has a data set already; give a new one")
    dealing = copy.deepcopy(partitioner)
    with warnings.catch_warnings(record=True) as told:
        try:
            dealing.dataset = _table(source, rng_seed)
            dealt = [dealing.load_partition(k) for k in range(dealing.num_partitions)]
        except (ValueError, TypeError, KeyError, IndexError, AttributeError) as error:
            raise _refused(name, error) from error
    for sentence in dict.fromkeys(str(w.message) for w in told if issubclass(w.category, UserWarning)):
        log.warning("the partitioner %s says: %s", name, sentence)
    if any(_ROW not in part.column_names for part in dealt):
        raise Mistake(f"data.partition: {name} deals columns, not rows; choose one that deals rows")
    rows = [np.sort(np.asarray(part[_ROW][:], dtype=np.int64)) for part in dealt]
    empty = [k for k, held in enumerate(rows) if not len(held)]
    if empty:
        raise Mistake(f"data.num_clients = {len(rows)}: {name} leaves client {empty[0]} without examples; lower it")
    return rows


def _table(source: Source, rng_seed: int) -> Any:
    """What a partitioner looks at of the training examples, in random order: a `datasets.Dataset`."""
    examples = source.train
    columns: dict[str, Any] = {}
    if source.feature_names is not None:
        x = examples.tensors()[0].numpy()
        columns |= {name: x[:, k] for k, name in enumerate(source.feature_names)}
    labels = examples.labels()
    if labels is not None and labels.dim() == 1:
        columns["label"] = labels.numpy()
    if source.groups is not None:
        columns["client"] = np.asarray(source.groups)
    order = np.random.default_rng(number("flower order", int(rng_seed))).permutation(len(examples))
    shuffled = {name: column[order] for name, column in columns.items()} | {_ROW: order}
    return huggingface.package("data.partition").Dataset.from_dict(shuffled)


def _refused(name: str, error: Exception) -> Mistake:
    why = reason(error)
    return Mistake(f"data.partition: the partitioner {name} says: {why}")
