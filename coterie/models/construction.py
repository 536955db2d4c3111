"""Call a model's function: with the arguments that its signature takes, and with random numbers of its own."""

from __future__ import annotations

import inspect
from collections.abc import Mapping, Sequence

import torch
from torch import nn

from coterie.core import rng
from coterie.core.errors import Mistake
from coterie.models.registry import ModelFunction
from coterie.models.shape_checks import require_known_sizes


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
        model = function(**arguments)
    if not isinstance(model, nn.Module):
        raise Mistake(f"it gave a {type(model).__name__}; it must return a torch.nn.Module", key="name", value=title)
    require_known_sizes(model, "name", title)
    return model


def _arguments(
    title: str, function: ModelFunction, facts: Mapping[str, object], options: Mapping[str, object]
) -> dict[str, object]:
    """Return those of `facts` that the function takes, and all options; refuse unknown and missing arguments."""
    parameters = inspect.signature(function).parameters.values()
    takes = {p.name: p for p in parameters if p.kind in (p.POSITIONAL_OR_KEYWORD, p.KEYWORD_ONLY)}
    takes_any = any(p.kind is p.VAR_KEYWORD for p in parameters)
    for key, value in options.items():
        if key not in takes and not takes_any:
            own = ", ".join(p for p in takes if p not in facts) or "none"
            raise Mistake(f"{title} has no such option; it takes {own}", key=key, value=value)
    arguments = {k: v for k, v in facts.items() if v is not None and (k in takes or takes_any)} | dict(options)
    for key, parameter in takes.items():
        if key not in arguments and parameter.default is inspect.Parameter.empty:
            why = "there are no classes in these data" if key in facts else f"give `{key}`"
            raise Mistake(f"it cannot be made without {key}; {why}", key="name", value=title)
    return arguments
