"""The source synthetic: clients that are made when they are looked up, so that a million of them cost nothing.

Every draw for client k depends on (rng seed, k) alone:

    n_k = 50 + round(exp(z)), z ~ N(4, 2^2)
    u_k ~ N(0, model_variation)     W_k [C, F], b_k [C] ~ N(u_k, 1)
    B_k ~ N(0, input_variation)     v_k [F] ~ N(B_k, 1)
    x ~ N(v_k, S), S diagonal with S_jj = j^-1.2          y = argmax(W_k x + b_k)

The two variations (the paper's alpha and beta) are variances. Legend: N clients, n examples, F features, C classes.

Departures from the paper: a client has at most 10,000 examples, since the log-normal sizes have no bound. Its test
examples, one for every nine training examples, are drawn in addition to them, not taken from them.

Reference: Li, Sahu, Zaheer, Sanjabi, Talwalkar, Smith 2020 (arXiv 1812.06127), section 5.1.
"""

from __future__ import annotations

import functools
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from math import sqrt

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from coterie.core.errors import Mistake
from coterie.core.examples import Examples, pool_examples
from coterie.core.kinds import Count, NonNegative
from coterie.core.machine import memory_bytes
from coterie.core.rng import fold, number
from coterie.core.rng import key as key_of
from coterie.data.argument_checks import require_count
from coterie.data.source import Source

_Array = NDArray[np.float64]

_MIN_EXAMPLES, _MAX_EXAMPLES = 50, 10_000
_TEST_CLIENTS = 100
_TRAINING_PER_TEST_EXAMPLE = 9


def synthetic(
    num_clients: Count,
    num_features: Count = 60,
    num_classes: Count = 10,
    model_variation: NonNegative = 1.0,
    input_variation: NonNegative = 1.0,
    examples_per_client: Count | None = None,
    rng_seed: int = 0,
) -> Source:
    """Make synthetic linear classification problems that differ from client to client.

    The test set is that of a hundred clients, evenly spaced, or of all if there are fewer.

    Args:
        num_clients: how many clients, called "0", "1", ...
        num_features: F.
        num_classes: C.
        model_variation: how much the clients' true models differ (alpha).
        input_variation: how much the clients' inputs differ (beta).
        examples_per_client: how many examples each client has; by default n_k.
        rng_seed: where all randomness comes from.

    Raises:
        Mistake: a number is out of range.
    """
    for key, value in {"num_clients": num_clients, "num_features": num_features, "num_classes": num_classes}.items():
        require_count(key, value)
    for key, variance in {"model_variation": model_variation, "input_variation": input_variation}.items():
        if isinstance(variance, bool) or not isinstance(variance, int | float) or not 0 <= variance < float("inf"):
            raise Mistake(key=key, value=variance, allowed="a finite number of at least 0")
    if examples_per_client is not None:
        require_count("examples_per_client", examples_per_client)
    _require_memory(num_features, num_classes, examples_per_client)
    shape = (
        num_features,
        num_classes,
        sqrt(model_variation),
        sqrt(input_variation),
        examples_per_client,
        int(rng_seed),
    )
    clients = Synthetic(num_clients, *shape)
    own = Synthetic(num_clients, *shape, test=True)
    num_tested = min(num_clients, _TEST_CLIENTS)
    test_clients = [str(k * num_clients // num_tested) for k in range(num_tested)]
    parts = [own[c] for c in test_clients]
    return Source(
        "synthetic",
        clients["0"],
        pool_examples(parts),
        num_classes,
        test_groups=[c for c, part in zip(test_clients, parts, strict=True) for _ in range(len(part))],
        clients=clients,
        own_tests=own,
    )


def _require_memory(num_features: int, num_classes: int, examples_per_client: int | None) -> None:
    """Refuse sizes of which this machine could not make one client's data.

    Raises:
        Mistake: they are such.
    """
    memory, each = memory_bytes(), examples_per_client or _MAX_EXAMPLES
    sizes = {"num_features": num_features, "num_classes": num_classes, "examples_per_client": examples_per_client}
    if 16 * ((each + num_classes) * num_features + each * num_classes) > memory:
        largest = max(sizes, key=lambda key: sizes[key] or 0)
        sentence = f"one client's data would not fit into this machine's {memory / 2**30:,.0f} GiB of memory; lower it"
        raise Mistake(sentence, key=largest, value=sizes[largest])


@functools.cache
def _size_probabilities() -> Tensor:
    """Return the probability that a client has at most 50, 51, ..., 9,999 examples, float64."""
    k = torch.arange(_MAX_EXAMPLES - _MIN_EXAMPLES, dtype=torch.float64)
    probability: Tensor = torch.special.ndtr((torch.log(k + 0.5) - 4) / 2)
    return probability


@dataclass(frozen=True)
class Synthetic(Mapping[str, Examples]):
    """The clients, or with `test` their test examples: x float32 [n, F], y int64 [n]; each look-up makes them again."""

    num_clients: int
    num_features: int
    num_classes: int
    model_deviation: float
    input_deviation: float
    examples_per_client: int | None
    rng_seed: int
    test: bool = False

    def __len__(self) -> int:
        return self.num_clients

    def __iter__(self) -> Iterator[str]:
        return (str(k) for k in range(self.num_clients))

    def __getitem__(self, client: str) -> Examples:
        if client not in self:
            raise KeyError(client)
        (size,) = self._training_sizes([client])
        rng = np.random.default_rng(number("synthetic", self.rng_seed, client))
        weight, bias, centre = self._draw_true_model(rng)
        for n in [size, max(1, size // _TRAINING_PER_TEST_EXAMPLE)] if self.test else [size]:
            scale = np.arange(1, self.num_features + 1) ** -0.6  # the root of S_jj = j^-1.2
            x = (rng.standard_normal((n, self.num_features)) * scale + centre).astype(np.float32)  # [n, F]
        y = np.argmax(x @ weight.T + bias, axis=1).astype(np.int64)  # [n]
        return Examples(torch.from_numpy(x), torch.from_numpy(y))

    def sizes(self, clients: Sequence[str]) -> list[int]:
        """Return how many examples each of these clients holds."""
        training = self._training_sizes(clients)
        return [max(1, size // _TRAINING_PER_TEST_EXAMPLE) for size in training] if self.test else training

    def _training_sizes(self, clients: Sequence[str]) -> list[int]:
        """Return n_k, the number of training examples, of each client: the same for all, or drawn by its id."""
        if self.examples_per_client is not None:
            return [self.examples_per_client] * len(clients)
        places = torch.tensor([int(client) for client in clients], dtype=torch.int64)
        u = fold(key_of("synthetic sizes", self.rng_seed), places).double() / 2**32
        sizes: list[int] = (torch.searchsorted(_size_probabilities(), u, right=True) + _MIN_EXAMPLES).tolist()
        return sizes

    def __contains__(self, client: object) -> bool:
        known = isinstance(client, str) and client.isascii() and client.isdigit()
        return known and int(str(client)) < self.num_clients and str(int(str(client))) == client

    def _draw_true_model(self, rng: np.random.Generator) -> tuple[_Array, _Array, _Array]:
        """Draw W_k [C, F], b_k [C] and v_k [F]."""
        u, b = rng.normal(0, self.model_deviation), rng.normal(0, self.input_deviation)
        weight = rng.normal(u, 1, (self.num_classes, self.num_features))
        return weight, rng.normal(u, 1, self.num_classes), rng.normal(b, 1, self.num_features)
