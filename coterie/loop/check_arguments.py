"""Check that the arguments of a federation are of the kinds that they must be, before anything is made of them."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any, SupportsFloat, SupportsIndex

import torch
from torch import Tensor, nn

from coterie.core.aggregators import Aggregator
from coterie.core.errors import Mistake, require
from coterie.core.examples import Clients, Examples
from coterie.core.kind_checks import is_whole
from coterie.core.task import Metric
from coterie.core.transforms import Transform
from coterie.data.as_examples import WANTED
from coterie.loop.attack import Attack
from coterie.loop.check_model import SCORE, name_by_client
from coterie.loop.cohort import Cohort
from coterie.loop.communication import Communication
from coterie.loop.faults import Faults
from coterie.objectives.metrics.of_torchmetrics import is_torchmetric
from coterie.privacy.table import Privacy

LOSS = f"a loss of torch.nn, such as torch.nn.MSELoss(), or {SCORE}"
MEASURE = f"a metric of torchmetrics, or {SCORE}"


def is_loss(value: object) -> bool:
    """Return whether a value can be a loss: a function, or a module of PyTorch with a mean."""
    return callable(value) and (not isinstance(value, type) or issubclass(value, nn.Module))


def is_measure(value: object) -> bool:
    """Return whether a value can be a metric: a function, or a metric of ours or of torchmetrics."""
    if is_torchmetric(value) or isinstance(value, Metric):
        return True
    return callable(value) and not isinstance(value, (nn.Module, type))


def _are_metrics(value: object) -> bool:
    """Return whether a value is a mapping from names to metrics, or a list of names."""
    if isinstance(value, Mapping):
        return all(map(is_measure, value.values()))
    return isinstance(value, Sequence) and not isinstance(value, str) and all(isinstance(each, str) for each in value)


def _has(*names: str) -> Callable[[object], bool]:
    return lambda value: not isinstance(value, type) and all(hasattr(value, name) for name in names)


KINDS: dict[str, tuple[Callable[[Any], bool], str]] = {
    "rounds": (is_whole, "a whole number, 1 or more"),
    "rng_seed": (is_whole, "a whole number"),
    "evaluate_every": (is_whole, "a whole number, 1 or more"),
    "evaluate_clients": (lambda value: isinstance(value, bool), "true or false"),
    "loss": (is_loss, LOSS),
    "metrics": (_are_metrics, f'a list of names, such as ["auroc"], or a dict of names and measures, each {MEASURE}'),
    "num_classes": (lambda value: is_whole(value) and value >= 1, "a whole number, 1 or more"),
    "cohort": (
        lambda value: (
            isinstance(value, Cohort | SupportsFloat | SupportsIndex) and not isinstance(value, bool | str | Tensor)
        ),
        "a fraction (a float), a number of clients (an int) or a coterie.Cohort",
    ),
    "augment": (callable, 'a function, such as coterie.data.augmentation("crop_flip")'),
    "available": (callable, "a function (round, client) -> whether the client can be asked"),
    "aggregation": (
        lambda value: isinstance(value, Aggregator),
        'an aggregator, such as coterie.aggregation.aggregation("median")',
    ),
    "up": (
        lambda value: isinstance(value, Transform | Communication),
        'a coterie.Communication, such as Communication("float16"), or a codec, a coterie.core.transforms.Transform',
    ),
    "faults": (lambda value: isinstance(value, Faults), "a coterie.Faults, such as Faults(drop=0.1)"),
    "attack": (
        lambda value: isinstance(value, Attack),
        'an attack, such as coterie.attacks.attack("sign_flip", num_clients=2)',
    ),
    "probe": (_has("extend_algorithm", "due"), "a probe, such as coterie.probes.Probe()"),
    "privacy": (
        lambda value: isinstance(value, Privacy),
        'a coterie.Privacy, such as Privacy(unit="client", clip_norm=1.0, noise_multiplier=1.0)',
    ),
    "lr_scale": (lambda value: isinstance(value, Mapping), "a dict of parts of the model and factors above 0"),
    "outputs": (lambda v: isinstance(v, str) or is_whole(v), "a name, or a place from 0"),
    "engine": (_has("run", "prepare", "device"), "an engine, such as coterie.engines.vectorised.Vectorised()"),
}
"""Argument of `coterie.plan` -> whether a value is of its kind, and what it must be, in words. None is left to it."""


def check_kinds(arguments: Mapping[str, object]) -> None:
    """Check the kinds of the arguments of `coterie.plan`; those that are None were left out.

    Raises:
        Mistake: one is of another kind.
    """
    for name, value in arguments.items():
        if value is not None or name in ("rounds", "rng_seed", "loss", "evaluate_every", "evaluate_clients"):
            is_right, allowed = KINDS[name]
            require(name, _short(value), is_right(value), allowed)


def check_clients(clients: object) -> None:
    """Check that clients are a mapping from ids to something, and that there are some.

    Raises:
        Mistake: they are something else.
    """
    allowed = f"a list, or a mapping from ids, which are strings, to examples: each {WANTED}"
    if not isinstance(clients, Mapping):
        raise Mistake(f"it is of type {type(clients).__name__}; it must be {allowed}", key="clients")
    for client in clients:
        if not isinstance(client, str):
            raise Mistake(f"the id {client!r} is not a string; it must be {allowed}", key="clients")
    if not len(clients):
        raise Mistake(f"there are none; it must be {allowed}", key="clients")


def check_examples(clients: Clients, test: Examples | None, own_test: Clients | None) -> None:
    """Check that there are examples to test on, and that rows lie in their pools.

    Those that are made on demand are not looked at.

    Raises:
        Mistake: there are none, or some do not.
    """
    if test is not None and not len(test):
        raise Mistake("it holds no examples to test on; give some, or leave it out", key="test")
    if own_test is not None and not isinstance(own_test, Mapping):
        name = type(own_test).__name__
        raise Mistake(f"it is of type {name}; it must be a dict of client ids, each with {WANTED}", key="own_test")
    for key, examples in (*name_by_client('clients["{}"]', clients), *name_by_client('own_test["{}"]', own_test)):
        _require_rows(key, examples)


def check_recipe(algorithm: object) -> None:
    """Check that an algorithm is one whose options are chosen.

    Raises:
        Mistake: it is something else.
    """
    name = getattr(algorithm, "__name__", "")
    if not callable(algorithm) or isinstance(algorithm, type):
        raise Mistake(
            f"it is {_short(algorithm)!r}; it must be an algorithm with its options, such as coterie.fedavg(lr=0.1)",
            key="algorithm",
        )
    if getattr(algorithm, "__module__", "").startswith("coterie.algorithms.") and "<locals>" not in getattr(
        algorithm, "__qualname__", "<locals>"
    ):
        raise Mistake(f"{name} has no options yet; call it, such as {name}(lr=0.1)", key="algorithm")


def _require_rows(key: str, value: Examples) -> None:
    """Refuse row numbers that are not in the pool."""
    rows = value.rows
    if rows is None:
        return
    if rows.dtype != torch.int64 or rows.dim() != 1:
        kind = str(rows.dtype).removeprefix("torch.")
        raise Mistake(f"its rows are {kind} of shape {list(rows.shape)}; they must be row numbers, int64 [n]", key=key)
    if len(rows):
        first, last = (int(row) for row in rows.aminmax())
        if first < 0 or last >= len(value.x):
            sentence = f"its rows are from {first} to {last}; they must be from 0 to {len(value.x) - 1}, the last of x"
            raise Mistake(sentence, key=key)


def _short(value: object) -> object:
    """Return a value as a message shows it: a function or an object by its type's name or its own."""
    plain = value is None or isinstance(value, bool | int | float | str)
    return value if plain or isinstance(value, Sequence) else getattr(value, "__name__", type(value).__name__)
