"""The models that a federation is given: which client has which, their copies on an engine, and how they are called."""

from __future__ import annotations

import copy
import logging
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager

import torch
from torch import Tensor, nn

from coterie.core import tree
from coterie.core.engine import Engine
from coterie.core.errors import Mistake, few, reason
from coterie.loop.check_model import Trials
from coterie.models.usable_model import require_usable_model

log = logging.getLogger(__name__)

Models = nn.Module | Sequence[nn.Module] | Mapping[str, nn.Module]


def name_architectures(
    model: Models, ids: Sequence[str]
) -> tuple[dict[str, nn.Module], Callable[[str], str], dict[str, str]]:
    """Return the models by architecture, the function from a client to its architecture, and how to name each model.

    Raises:
        Mistake: a model is missing, or cannot be trained.
    """
    if isinstance(model, str) or not isinstance(model, Sequence | Mapping) or isinstance(model, nn.Module):
        require_usable_model(model, "model")
        assert isinstance(model, nn.Module)
        return {"model": model}, lambda client: "model", {"model": "model"}
    if isinstance(model, Mapping):
        missing = [client for client in ids if client not in model]
        if missing:
            raise Mistake(f"client {missing[0]} has no model; name one for each client")
    given = list(model.values() if isinstance(model, Mapping) else model)
    if not given:
        raise Mistake("there is no model; give at least one")
    labels = [f'model["{client}"]' for client in model] if isinstance(model, Mapping) else []
    labels = labels or [f"model[{k}]" for k in range(len(given))]
    for each, label in zip(given, labels, strict=True):
        require_usable_model(each, label)
    names = {id(m): str(k) for k, m in enumerate(dict.fromkeys(given))}  # a model that is given twice counts once
    models = {names[id(m)]: m for m in given}
    keys = {names[id(m)]: label for m, label in reversed(list(zip(given, labels, strict=True)))}
    if isinstance(model, Mapping):
        return models, lambda client: names[id(model[client])], keys
    dealt = {client: names[id(given[k % len(given)])] for k, client in enumerate(ids)}
    return models, lambda client: dealt[client], keys


def copy_to_engine(model: nn.Module, engine: Engine, key: str) -> nn.Module:
    """Return a copy of the model on the engine's device, in its type of number.

    Raises:
        Mistake: it cannot be moved, or a number is beyond the range of the type.
    """
    try:
        moved = copy.deepcopy(model).to(engine.device, engine.dtype)
    except (RuntimeError, TypeError, ValueError) as error:
        raise Mistake(f"it cannot be moved to {engine.device} as {engine.dtype} ({reason(error)})", key=key) from error
    given = dict(_tensors_by_name(model))
    for name, x in _tensors_by_name(moved):
        if not tree.is_finite(x) and not torch.equal(x.isfinite().cpu(), given[name].isfinite().cpu()):
            raise Mistake(f"its {name} holds numbers beyond the range of {engine.dtype}; give smaller ones", key=key)
    return moved


def _tensors_by_name(model: nn.Module) -> Iterator[tuple[str, Tensor]]:
    """Yield the model's parameters and buffers by name."""
    for name, x in (*model.named_parameters(), *model.named_buffers()):
        yield name, x.detach()


@contextmanager
def mistakes_about(keys: Mapping[str, str]) -> Iterator[None]:
    """Name the model as the caller gave it, in mistakes about an architecture."""
    try:
        yield
    except Mistake as mistake:
        if mistake.key is None or mistake.key not in keys:
            raise
        raise Mistake(mistake.sentence, key=keys[mistake.key]) from mistake.__cause__


def say_habits(trials: Trials, keys: Mapping[str, str]) -> None:
    """Log which models draw from PyTorch's global generator, and which change buffers that are not sent."""
    for name, trial in trials.items():
        layer = trial.habits.drawing_layer
        if layer is not None:
            log.warning(
                "%s draws random numbers from PyTorch's global generator%s: its results repeat on one engine, but "
                "differ between engines, or where another thread draws too; torch.nn.Dropout does not",
                keys[name],
                f", in its layer {layer}" if layer else "",
            )
        if trial.habits.unsent_buffers:
            log.warning(
                "%s changes %s in its forward, which holds no floats and is not sent: at each client and in each round "
                "it starts from its first value; let a buffer that must travel hold floats",
                keys[name],
                few(trial.habits.unsent_buffers),
            )
