"""Call a model's function: with the arguments that its signature takes, and with random numbers of its own."""

from __future__ import annotations

import inspect
import traceback
from collections.abc import Mapping, Sequence
from pathlib import Path

import torch
from torch import nn

from coterie.core import rng
from coterie.core.errors import Mistake, reason
from coterie.core.toml_text import toml_text
from coterie.models.limited_memory import LimitedMemory, TooLarge
from coterie.models.registry import ModelFunction
from coterie.models.usable_model import require_usable_model


def construct(
    function: ModelFunction,
    title: str,
    in_shape: Sequence[int],
    num_classes: int | None,
    rng_seed: int,
    options: Mapping[str, object],
) -> nn.Module:
    """Return the model that `function` makes; see `coterie.models.registry.build`.

    Args:
        title: what the user calls the function, for messages.

    Raises:
        Mistake: an option is unknown, an argument is missing, or what the function returns cannot be trained.
    """
    arguments = _arguments(title, function, {"in_shape": list(in_shape), "num_classes": num_classes}, options)
    with torch.random.fork_rng(devices=[]):
        torch.default_generator.manual_seed(rng.number(rng_seed, "initial weights"))  # the host's generator alone
        model = _call(function, title, arguments)
    if not isinstance(model, nn.Module):
        raise Mistake(f"it gave a {type(model).__name__}; it must return a torch.nn.Module", key="name", value=title)
    require_usable_model(model, "name", title)
    return model


def _call(function: ModelFunction, title: str, arguments: Mapping[str, object]) -> object:
    """Return what a model's function returns; an error that it raises becomes a mistake that says where."""
    try:
        with LimitedMemory():
            return function(**arguments)
    except Mistake:
        raise
    except TooLarge as error:
        sizes = "".join(f", {key} = {toml_text(value)}" for key, value in arguments.items())
        raise Mistake(f"{error}; give it smaller sizes ({sizes.removeprefix(', ')})", key="name", value=title) from None
    except Exception as error:  # anything that a user's function raises
        where = traceback.extract_tb(error.__traceback__)[-1]
        sentence = f"it cannot be made: {type(error).__name__} in line {where.lineno} of {Path(where.filename).name}"
        raise Mistake(f"{sentence} ({reason(error)})", key="name", value=title) from error


def _arguments(
    title: str, function: ModelFunction, facts: Mapping[str, object], options: Mapping[str, object]
) -> dict[str, object]:
    """Return those of `facts` that the function takes, and all options; refuse unknown and missing arguments."""
    try:
        parameters = inspect.signature(function).parameters.values()
    except (TypeError, ValueError):  # some functions that are written in C
        raise Mistake(f"{title} is not a function that makes a model", key="name", value=title) from None
    takes = {p.name: p for p in parameters if p.kind in (p.POSITIONAL_OR_KEYWORD, p.KEYWORD_ONLY)}
    takes_any = any(p.kind is p.VAR_KEYWORD for p in parameters)
    for key, value in options.items():
        if key not in takes and not takes_any:
            own = ", ".join(p for p in takes if p not in facts) or "none"
            raise Mistake(f"{title} has no such option; it takes {own}", key=key, value=value)
    unnamed = [p.name for p in parameters if p.kind is p.POSITIONAL_ONLY and p.default is p.empty]
    if unnamed:
        sentence = f"it takes {unnamed[0]} by its place, not by name; give a function that makes a model"
        raise Mistake(sentence, key="name", value=title)
    arguments = {k: v for k, v in facts.items() if v is not None and (k in takes or takes_any)} | dict(options)
    for key, parameter in takes.items():
        if key not in arguments and parameter.default is inspect.Parameter.empty:
            why = "there are no classes in these data" if key in facts else f"give `{key}`"
            raise Mistake(f"it cannot be made without {key}; {why}", key="name", value=title)
    return arguments
