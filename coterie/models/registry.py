"""Models by name, and their initial weights as a function of the model and the rng seed alone."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Mapping, Sequence
from difflib import get_close_matches
from typing import TypeAlias

import torch
from torch import nn

from coterie.core import rng
from coterie.core.errors import Mistake
from coterie.models import libraries
from coterie.models.convolutional import cifar_cnn, cnn
from coterie.models.dense import logistic, mlp, two_nn
from coterie.models.recurrent import char_lstm, word_lstm
from coterie.models.residual import resnet20
from coterie.models.shape_checks import sized

ModelFunction: TypeAlias = Callable[..., nn.Module]
"""A function that makes a model. It is called with `in_shape`, the shape of one example, and `num_classes`, where its
signature takes them, and with options of its own."""

MODELS: Mapping[str, ModelFunction] = {
    "2nn": two_nn,
    "char_lstm": char_lstm,
    "cifar_cnn": cifar_cnn,
    "cnn": cnn,
    "logistic": logistic,
    "mlp": mlp,
    "resnet20": resnet20,
    "word_lstm": word_lstm,
}

_OF_LIBRARIES = ", ".join(f'"{prefix}NAME"' for prefix in libraries.LIBRARIES)


def build(
    name: str | ModelFunction,
    in_shape: Sequence[int],
    num_classes: int | None,
    rng_seed: int,
    *,
    importer: Callable[[str], ModelFunction] | None = None,
    **options: object,
) -> nn.Module:
    """A model with its initial weights.

    The weights depend on the model and `rng_seed` alone; PyTorch's own random state is left as it was.

    Args:
        name: a key of `MODELS`, a function, a library's model such as "torchvision:resnet18", or
            "package.module:function", which `importer` turns into a function.
        in_shape: the shape of one example, such as [1, 28, 28].
        num_classes: the size of the output, or None for a function that does not take it.
        options: the model's own, such as `hidden` of mlp.

    Raises:
        Mistake: the name or an option is unknown, or the model cannot take the shape.

    >>> build("mlp", [4], 3, rng_seed=0, hidden=[8])[1].out_features
    8
    """
    title = name if isinstance(name, str) else getattr(name, "__name__", repr(name))
    function = _found(name, importer) if isinstance(name, str) else name
    arguments = _arguments(title, function, {"in_shape": list(in_shape), "num_classes": num_classes}, options)
    with torch.random.fork_rng(devices=[]):
        torch.default_generator.manual_seed(rng.number(rng_seed, "initial weights"))  # the host's generator alone
        model = function(**arguments)
    if not isinstance(model, nn.Module):
        raise Mistake(f"model.name = {title} gave a {type(model).__name__}; it must return a torch.nn.Module")
    return sized(f"model.name = {title}", model)


def _found(name: str, importer: Callable[[str], ModelFunction] | None) -> ModelFunction:
    theirs = libraries.function(name)
    if theirs is not None:
        return theirs
    if ":" in name and importer is not None:
        return importer(name)
    if name not in MODELS:
        close = get_close_matches(name.lower(), MODELS, n=1)
        raise Mistake(
            f"model.name = {name} is unknown{f' (did you mean {close[0]}?)' if close else ''}; "
            f"choose one of {', '.join(sorted(MODELS))}, name one of a library as {_OF_LIBRARIES}, or your own as "
            '"package.module:function"'
        )
    return MODELS[name]


def _arguments(
    title: str, function: ModelFunction, given: dict[str, object], options: dict[str, object]
) -> dict[str, object]:
    """What the function is called with: of `given` what is known and its signature takes, and all options."""
    parameters = inspect.signature(function).parameters.values()
    takes = {p.name: p for p in parameters if p.kind in (p.POSITIONAL_OR_KEYWORD, p.KEYWORD_ONLY)}
    anything = any(p.kind is p.VAR_KEYWORD for p in parameters)
    for key, value in options.items():
        if key not in takes and not anything:
            own = ", ".join(p for p in takes if p not in given) or "none"
            raise Mistake(f"model.{key} = {value}: {title} has no such option; it takes {own}")
    arguments = {k: v for k, v in given.items() if v is not None and (k in takes or anything)} | options
    for key, parameter in takes.items():
        if key not in arguments and parameter.default is inspect.Parameter.empty:
            why = "there are no classes in these data" if key in given else f"give model.{key}"
            raise Mistake(f"model.name = {title} cannot be made without {key}; {why}")
    return arguments
