"""What a user gives for examples: pairs of arrays, data sets and loaders of PyTorch. All of it becomes `Examples`.

A data set is read once, item by item in its order, and kept as tensors. Items that differ from one reading to the next
are refused: what is drawn at random belongs into `augment`, which draws from the seed of the run.

Legend: n examples.
"""

from __future__ import annotations

import random
import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any, TypeAlias, TypeGuard

import numpy as np
import torch
from torch import Tensor
from torch.utils import data as torch_data

from coterie.core.errors import Mistake, reason
from coterie.core.examples import Clients, Examples

WANTED = (
    "coterie.Examples(x, y), tensors with a row for each example; a pair (x, y) of tensors, NumPy arrays or pandas "
    "frames; or a Dataset of PyTorch with items (x, y)"
)
RANDOM_ITEMS = (
    "its items differ from one reading to the next, and they are read once: leave random transforms out of it, and "
    'give `augment`, such as coterie.data.augmentation("crop_flip")'
)


Pairs: TypeAlias = torch_data.Dataset[Any] | torch_data.DataLoader[Any] | tuple[Any, Any] | list[Any]
"""Examples as others have them: a data set or a loader of PyTorch, or (x, y), two tensors, arrays or frames."""
ClientPairs: TypeAlias = Mapping[str, Pairs | Examples] | Sequence[Pairs | Examples]
"""A federation's clients with such examples, by id or in a list."""


def as_examples(given: Any, key: str = "examples") -> Examples:
    """Return what a user gives for examples as `Examples`.

    Args:
        given: `Examples`; a pair (x, y) of tensors, NumPy arrays or pandas frames; a map-style `Dataset` of PyTorch
            whose items are pairs (x, y), or x alone; or a `DataLoader`, of which the data set is taken.
        key: the argument that gave it, for messages.

    Raises:
        Mistake: it is something else, it cannot be read, or its items are drawn at random.

    >>> pairs = torch_data.TensorDataset(torch.zeros(5, 2), torch.ones(5))
    >>> len(as_examples(torch_data.Subset(pairs, [0, 3])))
    2
    """
    if isinstance(given, Examples):
        return given
    if is_dataset(given):
        return _read(_unwrap(given, key), key)
    if isinstance(given, tuple | list) and len(given) == 2 and all(_is_array(part) for part in given):
        try:
            return Examples(*given)
        except Mistake as mistake:
            raise Mistake(f"its {mistake}", key=key) from mistake.__cause__
    raise Mistake(f"it is of type {type(given).__name__}; it must be {WANTED}", key=key)


def as_clients(given: Any, key: str = "clients") -> Clients:
    """Return what a user gives for clients as a mapping from ids to `Examples`.

    Args:
        given: a mapping from ids, or a list, whose places become the ids "0", "1", and so on. Of each client it holds
            what `as_examples` takes. Data sets are read when their client is first looked up. Another mapping
            than a dict stays as it is: it makes `Examples` on demand.
        key: the argument that gave it, for messages.

    Raises:
        Mistake: it is something else.
    """
    if isinstance(given, list | tuple):
        given = {str(k): each for k, each in enumerate(given)}
    if not isinstance(given, dict):
        return given  # type: ignore[no-any-return]  # its type is checked with those of other arguments
    names = {client: f'{key}["{client}"]' for client in given}
    if any(is_dataset(each) and not _is_in_memory(each) for each in given.values()):
        for client, each in given.items():
            if not is_dataset(each):
                as_examples(each, names[client])  # refused now, not when it is looked up
        loaders = {c: _unwrap(each, names[c]) if is_dataset(each) else each for c, each in given.items()}
        return ReadClients(loaders, lambda client, each: as_examples(each, names.get(client, key)))
    if all(isinstance(each, Examples) for each in given.values()):
        return given
    return {client: as_examples(each, names[client]) for client, each in given.items()}


class ReadClients(Mapping[str, Examples]):
    """Clients whose examples are made at the first look, and kept.

    Args:
        given: client -> what its examples are made from.
        make: (client, what is given) -> its examples.
    """

    def __init__(self, given: Mapping[str, Any], make: Callable[[str, Any], Examples]) -> None:
        self.given, self._make, self._made = given, make, dict[str, Examples]()

    def __getitem__(self, client: str) -> Examples:
        if client not in self._made:
            self._made[client] = self._make(client, self.given[client])
        return self._made[client]

    def __iter__(self) -> Iterator[str]:
        return iter(self.given)

    def __len__(self) -> int:
        return len(self.given)

    def sizes(self, clients: Sequence[str]) -> list[int]:
        """Return how many examples each of these clients holds, without reading them."""
        if isinstance(self.given, ReadClients):
            return self.given.sizes(clients)
        parts = (self.given[client] for client in clients)
        return [len(part[0]) if isinstance(part, tuple | list) else len(part) for part in parts]

    def then(self, change: Callable[[str, Examples], Examples]) -> ReadClients:
        """Return these clients with a function applied to the examples of each, when they are looked up."""
        return ReadClients(self, change)


def read_all(clients: Clients) -> Clients:
    """Return clients of data sets as a dict, for what needs all of them at once; others unchanged."""
    return dict(clients) if isinstance(clients, ReadClients) else clients


def check_when_read(clients: Clients, check: Callable[[str, Examples], object]) -> Clients:
    """Return clients of data sets with a check of each, (client, examples), when it is read; others unchanged."""

    def change(client: str, examples: Examples) -> Examples:
        check(client, examples)
        return examples

    return clients.then(change) if isinstance(clients, ReadClients) else clients


def change_examples(clients: Clients, change: Callable[[str, Examples], Examples]) -> Clients:
    """Return the clients with (client, examples) -> examples applied to each; the same mapping where nothing changes.

    The examples that a mapping of the user's own makes on demand stay as they are.
    """
    if isinstance(clients, ReadClients):
        return clients.then(change)
    if not isinstance(clients, dict):
        return clients
    changed = {client: change(client, each) for client, each in clients.items()}
    return clients if all(changed[client] is each for client, each in clients.items()) else changed


def is_dataset(value: object) -> TypeGuard[torch_data.Dataset[Any] | torch_data.DataLoader[Any]]:
    """Return whether a value is a data set or a loader of PyTorch, of any style."""
    return isinstance(value, torch_data.Dataset | torch_data.DataLoader)


def _is_array(value: object) -> bool:
    return isinstance(value, Tensor) or (hasattr(value, "__array__") and hasattr(value, "shape"))


def _unwrap(given: Any, key: str) -> torch_data.Dataset[Any]:
    """Return the data set of a loader, or the part of it that the loader's sampler takes; refuse iterable ones.

    Raises:
        Mistake: it has no items by number, or the loader does more than shuffle and batch.
    """
    dataset = given
    if isinstance(given, torch_data.DataLoader):
        dataset, sampler = given.dataset, given.sampler
        if given.collate_fn not in (torch_data.default_collate, torch_data._utils.collate.default_convert):
            raise Mistake("its collate_fn would not be used; let the items of its Dataset be what it makes", key=key)
        if isinstance(sampler, torch_data.SubsetRandomSampler):
            dataset = torch_data.Subset(dataset, list(sampler.indices))
        elif not isinstance(dataset, torch_data.IterableDataset) and not _takes_all(sampler, dataset):
            sentence = f"its {type(sampler).__name__} would not be used; give the Dataset, or a Subset of it"
            raise Mistake(sentence, key=key)
        warnings.warn(
            "coterie: of a DataLoader the data set is taken; its batch size and shuffling are not used: give "
            "batch_size to the algorithm, which shuffles in every epoch",
            stacklevel=3,
        )
    if isinstance(dataset, torch_data.IterableDataset) or not hasattr(dataset, "__len__"):
        name = type(dataset).__name__
        raise Mistake(f"{name} has no items by number; give a Dataset with __len__ and __getitem__", key=key)
    return dataset  # type: ignore[no-any-return]


def _takes_all(sampler: object, dataset: Any) -> bool:
    """Return whether a loader's sampler takes every item once."""
    if isinstance(sampler, torch_data.RandomSampler):
        return not sampler.replacement and sampler.num_samples == len(dataset)
    return isinstance(sampler, torch_data.SequentialSampler)


def _is_in_memory(given: Any) -> bool:
    """Return whether a data set, or what it is a part of, is tensors already."""
    dataset = given.dataset if isinstance(given, torch_data.DataLoader) else given
    while type(dataset) is torch_data.Subset:
        dataset = dataset.dataset
    return type(dataset) is torch_data.TensorDataset


def _read(dataset: Any, key: str) -> Examples:
    """Return the items of a data set; those of tensors share their memory.

    Raises:
        Mistake: items are not pairs of numbers of one shape and type, or are drawn at random.
    """
    if type(dataset) is torch_data.TensorDataset:
        if len(dataset.tensors) > 2:
            raise Mistake(f"its items have {len(dataset.tensors)} parts; each must be a pair (x, y)", key=key)
        return Examples(*dataset.tensors)
    if type(dataset) is torch_data.Subset and _is_in_memory(dataset):
        rows = torch.as_tensor(dataset.indices, dtype=torch.int64)
        return _read(dataset.dataset, key).take(rows)
    if not len(dataset):
        raise Mistake("it has no items; leave it out, or give it some", key=key)
    before = _random_states()
    x, y = _Rows("x", key), _Rows("y", key)
    for number in range(len(dataset)):
        parts = _item(dataset, number, key)
        for column, part in zip((x, y), parts, strict=True):
            column.put(number, len(dataset), part)
    again = _item(dataset, 0, key)
    if _random_states() != before or not all(r.holds(0, part) for r, part in zip((x, y), again, strict=True)):
        raise Mistake(RANDOM_ITEMS, key=key)
    assert x.values is not None
    return Examples(x.values, y.values)


def _item(dataset: Any, number: int, key: str) -> tuple[Tensor, Tensor | None]:
    """Return x and y of an item."""
    try:
        item = dataset[number]
    except Exception as error:  # anything that a user's data set raises
        raise Mistake(f"its item {number} cannot be read ({reason(error)})", key=key) from error
    if isinstance(item, tuple | list) and len(item) in (1, 2):
        x, y = item if len(item) == 2 else (item[0], None)
    elif isinstance(item, Tensor | np.ndarray):
        x, y = item, None
    else:
        parts = f" of {len(item)}" if isinstance(item, tuple | list) else ""
        raise Mistake(f"its item {number} is a {type(item).__name__}{parts}; it must be a pair (x, y)", key=key)
    tensor = _as_tensor(x, f"x of its item {number}", key)
    return tensor, None if y is None else _as_tensor(y, f"y of its item {number}", key)


def _as_tensor(value: Any, name: str, key: str) -> Tensor:
    if isinstance(value, Tensor):
        return value.detach()
    if isinstance(value, bool | int | float | np.ndarray | np.generic):
        try:
            return torch.tensor(np.array(value) if isinstance(value, np.ndarray | np.generic) else value)
        except (TypeError, ValueError) as error:
            raise Mistake(f"{name} cannot become a tensor ({reason(error)})", key=key) from error
    hint = ", such as torchvision.transforms.ToTensor() makes" if type(value).__module__.startswith("PIL.") else ""
    raise Mistake(f"{name} is a {type(value).__name__}; it must be a tensor, an array or a number{hint}", key=key)


class _Rows:
    """Parts of items, put into one tensor [n, ...] as they are read, so that they are in memory once."""

    def __init__(self, name: str, key: str) -> None:
        self.name, self.key = name, key
        self.values: Tensor | None = None

    def put(self, number: int, n: int, part: Tensor | None) -> None:
        """Put one item's part into its row.

        Raises:
            Mistake: it is not like that of the first item.
        """
        if number == 0 and part is not None:
            self.values = part.new_empty((n, *part.shape))
        first = None if self.values is None else self.values[0]
        if _form(part) != _form(first):
            raise Mistake(
                f"the {self.name} of its item {number} is {_form(part)}, that of item 0 {_form(first)}; all must have "
                "one shape and type",
                key=self.key,
            )
        if self.values is not None and part is not None:
            self.values[number] = part

    def holds(self, number: int, part: Tensor | None) -> bool:
        """Return whether an item's part is the one that was put; NaN are alike."""
        if self.values is None or part is None:
            return self.values is None and part is None
        return torch.equal(self.values[number].nan_to_num(), part.nan_to_num())


def _form(part: Tensor | None) -> str:
    return "none" if part is None else f"{str(part.dtype).removeprefix('torch.')} of shape {list(part.shape)}"


def _random_states() -> tuple[object, ...]:
    """Return the states of the generators that transforms draw from, in a form that can be compared."""
    kind, keys, *rest = np.random.get_state(legacy=True)
    return torch.get_rng_state().numpy().tobytes(), random.getstate(), kind, np.asarray(keys).tobytes(), rest
