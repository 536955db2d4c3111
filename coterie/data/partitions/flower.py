"""Partitions by the partitioners of the package flwr-datasets (Flower).

A partitioner deals the rows of a table of the package `datasets`. Here the table holds row numbers, the column "label",
the column "client" where the data have clients of their own, and the features by name where the source is a table. The
row numbers that the partitioner returns say which client holds which example. So it deals any source, and copies no
example.

Rows are shuffled first, as in Flower's `FederatedDataset`. flwr-datasets is imported only here, when it is used.
Legend: N training examples.
"""

from __future__ import annotations

import copy
import inspect
import logging
import warnings
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np

from coterie.core.errors import Mistake, reason
from coterie.core.packages import import_package
from coterie.core.rng import number
from coterie.core.toml_text import toml_text
from coterie.data import huggingface
from coterie.data.argument_checks import require_known_arguments
from coterie.data.partitions import FLOWER_PREFIX
from coterie.data.partitions.partition import Partition, Rows, number_clients
from coterie.data.source import Source

log = logging.getLogger(__name__)

_ROW_COLUMN = "number of the row"
_GIVEN_BY_US = ("num_partitions", "seed")  # num_clients, and a function of the rng seed


class Partitioner(Protocol):
    """The members of flwr-datasets' partitioners that are used here."""

    dataset: Any

    @property
    def num_partitions(self) -> int:
        """How many clients there are."""

    def is_dataset_assigned(self) -> bool:
        """Return whether the partitioner has a data set."""

    def load_partition(self, partition_id: int) -> Any:
        """Return the rows of one client."""


@dataclass(frozen=True)
class FlowerPartition(Partition):
    """A partition by a partitioner of flwr-datasets.

    Attributes:
        name: what messages call it.
        make: (num_clients or None, rng seed) -> a partitioner without a data set.
    """

    name: str
    make: Callable[[int | None, int], Partitioner]

    def deal(self, source: Source, num_clients: int | None, rng_seed: int) -> dict[str, Rows]:
        """Return the rows of each client, as the partitioner deals them; see `Partition.deal`."""
        partitioner = self.make(num_clients, rng_seed)
        rows = deal_rows(source, partitioner, rng_seed)
        if num_clients is not None and num_clients != len(rows):
            kind = type(partitioner).__name__
            raise Mistake(
                f"the partitioner {kind} makes {len(rows)}; leave it out", key="num_clients", value=num_clients
            )
        return number_clients(rows)


def wrap_partitioner(partitioner: Partitioner) -> FlowerPartition:
    """Return a partition that deals with this partitioner of flwr-datasets, which the user made."""
    return FlowerPartition(type(partitioner).__name__, lambda num_clients, rng_seed: partitioner)


def partition_factory(name: str) -> Callable[..., FlowerPartition]:
    """Return a function that makes the partition called "flwr:NAME" from the partitioner's own arguments.

    Its signature has these arguments, without the number of clients and the seed. `partition_by` is the label unless
    given.

    Raises:
        Mistake: flwr-datasets is not installed, or has no such partitioner.
    """
    kind = find_partitioner(name)
    parameters = [
        p.replace(kind=p.KEYWORD_ONLY, default="label" if p.name == "partition_by" else p.default)
        for p in inspect.signature(kind).parameters.values()
        if p.name not in _GIVEN_BY_US
    ]

    def make(**arguments: Any) -> FlowerPartition:
        """Return the partition with these arguments of the partitioner; refuse unknown and missing ones."""
        require_known_arguments(make, f"the partitioner {kind.__name__}", arguments)
        by = {"partition_by": "label"} if any(p.name == "partition_by" for p in parameters) else {}
        return FlowerPartition(name, lambda n, seed: make_partitioner(name, n, seed, by | arguments))

    make.__signature__ = inspect.Signature(parameters)  # type: ignore[attr-defined]
    return make


def find_partitioner(name: str) -> type[Any]:
    """Return the class of flwr-datasets that "flwr:NAME" names.

    Raises:
        Mistake: flwr-datasets is not installed, or has no such class, or the class does not deal rows or cannot be
            described in a file.
    """
    module = import_package("flwr_datasets.partitioner", "partition", "flower-datasets", name)
    known = [each for each in module.__all__ if _is_usable(getattr(module, each))]
    wanted = name.removeprefix(FLOWER_PREFIX)
    if wanted not in known:
        raise Mistake(
            f"after {FLOWER_PREFIX} it must be one of {', '.join(known)}; "
            "any other partitioner can be given from Python",
            key="partition",
            value=name,
        )
    found: type[Any] = getattr(module, wanted)
    return found


def _is_usable(kind: type[Any]) -> bool:
    """Return whether a partitioner deals rows, and is made from values that a file can hold."""
    vertical = kind.__name__.startswith("Vertical")
    kinds = [str(p.annotation) for p in inspect.signature(kind).parameters.values()]
    return not inspect.isabstract(kind) and not vertical and not any("Callable" in k for k in kinds)


def make_partitioner(name: str, num_clients: int | None, rng_seed: int, arguments: Mapping[str, Any]) -> Partitioner:
    """Make the partitioner that "flwr:NAME" names, with `arguments` of its own.

    Raises:
        Mistake: there is no such partitioner, or it refuses a value.
    """
    kind = find_partitioner(name)
    parameters = inspect.signature(kind).parameters
    given = {key: _array_if_needed(value, str(parameters[key].annotation)) for key, value in arguments.items()}
    if "num_partitions" in parameters:
        if num_clients is None:
            raise Mistake(
                f"missing; the partition {toml_text(name)} needs to know how many clients to deal to",
                key="num_clients",
            )
        given["num_partitions"] = num_clients
    if "seed" in parameters:
        given["seed"] = number("flower partition", int(rng_seed))
    try:
        made: Partitioner = kind(**given)
    except (ValueError, TypeError) as error:
        raise _refusal(kind.__name__, error) from error
    return made


def _array_if_needed(value: Any, annotation: str) -> Any:
    """Return `value` as an array if `annotation`, that of a partitioner's argument, demands one; else unchanged."""
    return np.asarray(value) if "NDArray" in annotation and "list" not in annotation else value


def deal_rows(source: Source, partitioner: Partitioner, rng_seed: int = 0) -> list[Rows]:
    """Deal the training examples of `source` by a copy of `partitioner`, and return the rows of each client.

    The partitioner itself stays unchanged, so that it may be used again.

    Args:
        source: the data set.
        partitioner: one of flwr-datasets, without a data set.
        rng_seed: of the order in which the partitioner gets the rows.

    Raises:
        Mistake: the partitioner has a data set already, cannot deal this one, or leaves a client without examples.
    """
    name = type(partitioner).__name__
    if partitioner.is_dataset_assigned():
        raise Mistake(f"the partitioner {name} has a data set already; give a new one", key="partition")
    dealing = copy.deepcopy(partitioner)
    with warnings.catch_warnings(record=True) as caught:
        try:
            dealing.dataset = _make_table(source, rng_seed)
            dealt = [dealing.load_partition(k) for k in range(dealing.num_partitions)]
        except (ValueError, TypeError, KeyError, IndexError, AttributeError) as error:
            raise _refusal(name, error) from error
    for sentence in dict.fromkeys(str(w.message) for w in caught if issubclass(w.category, UserWarning)):
        log.warning("the partitioner %s says: %s", name, sentence)
    if any(_ROW_COLUMN not in part.column_names for part in dealt):
        raise Mistake(f"{name} deals columns, not rows; choose one that deals rows", key="partition")
    rows = [np.sort(np.asarray(part[_ROW_COLUMN][:], dtype=np.int64)) for part in dealt]
    empty = [k for k, held in enumerate(rows) if not len(held)]
    if empty:
        raise Mistake(f"{name} leaves client {empty[0]} without examples; lower it", key="num_clients", value=len(rows))
    return rows


def _make_table(source: Source, rng_seed: int) -> Any:
    """Make a `datasets.Dataset` of the columns that a partitioner may read, in random order."""
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
    shuffled = {name: column[order] for name, column in columns.items()} | {_ROW_COLUMN: order}
    return huggingface.import_datasets("the partition").Dataset.from_dict(shuffled)


def _refusal(name: str, error: Exception) -> Mistake:
    return Mistake(f"the partitioner {name} says: {reason(error)}", key="partition")
