"""Partitions: values that deal the training examples of a source to clients.

Legend: N training examples.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from coterie.core.errors import Mistake
from coterie.core.toml_text import toml_text
from coterie.data.argument_checks import require_count, require_enough_examples

if TYPE_CHECKING:
    from coterie.data.source import Source

Rows = NDArray[np.int64]
"""The numbers of some examples, ascending."""


class Partition(ABC):
    """A way to deal the training examples of a source to clients: a frozen value, made by a function like `dirichlet`.

    Attributes:
        name: what a file calls it.
    """

    name: str

    @abstractmethod
    def deal(self, source: Source, num_clients: int | None, rng_seed: int) -> dict[str, Rows]:
        """Return the training examples of each client, by client id.

        Args:
            source: the data set.
            num_clients: how many clients; None where the user gives no number.
            rng_seed: where the randomness comes from.

        Raises:
            Mistake: the source cannot be dealt in this way.
        """


@dataclass(frozen=True)
class NumberedPartition(Partition):
    """A partition among a given number of clients, called "0", "1", ...

    Call it with the label of each example [N], the number of clients and a generator to get the rows of each client.
    Together they hold every example exactly once.

    Attributes:
        name: what a file calls it.
        split: (labels, num_clients, rng, **arguments) -> the rows of each client.
        arguments: the partition's own, by name.
        by_label: whether it reads the labels. If not, only the number of examples counts, and the labels are zeros.
    """

    name: str
    split: Callable[..., Sequence[Rows]]
    arguments: Mapping[str, Any] = field(default_factory=dict, hash=False)
    by_label: bool = False

    def __call__(self, labels: NDArray[np.int64], num_clients: int, rng: np.random.Generator) -> Sequence[Rows]:
        """Return the rows of each client."""
        require_enough_examples(len(labels), require_count("num_clients", num_clients))
        return self.split(labels, num_clients, rng, **self.arguments)

    def deal(self, source: Source, num_clients: int | None, rng_seed: int) -> dict[str, Rows]:
        """Return the rows of each client, called "0", "1", ...; see `Partition.deal`."""
        from coterie.core.rng import number  # which needs PyTorch; the rest of this file does not

        labels = self._read_labels(source)
        if num_clients is None:
            raise Mistake(
                f"missing; the partition {toml_text(self.name)} needs to know how many clients to deal to; data that "
                "have clients of their own name them, a table by `client_column`",
                key="num_clients",
            )
        rng = np.random.default_rng(number("partition", int(rng_seed)))
        return number_clients(self(labels, num_clients, rng))

    def _read_labels(self, source: Source) -> NDArray[np.int64]:
        """Return the class of each example [N], or zeros if the split ignores labels; refuse other labels."""
        if not self.by_label:
            return np.zeros(len(source.train), dtype=np.int64)
        y = source.train.labels()
        if y is None or y.dim() != 1 or y.is_floating_point():
            raise Mistake(
                f"it needs one class label for each example, which the source {source.name} does not have; "
                "choose iid, quantity or natural",
                key="partition",
                value=self.name,
            )
        labels: NDArray[np.int64] = y.numpy()
        return labels


def number_clients(parts: Sequence[Rows]) -> dict[str, Rows]:
    """Return the parts by client id: "0", "1", ..."""
    return {str(k): part for k, part in enumerate(parts)}
