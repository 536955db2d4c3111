"""Parts of a model by name: what is frozen, what moves more slowly, and the head, which is new for new classes.

A part is a module or a parameter, called as in the `state_dict`: "stage1", "stage1.0.conv2", "output.bias".

>>> model = nn.Sequential(nn.Linear(4, 3), nn.ReLU(), nn.Linear(3, 2))
>>> freeze({"": model}, ["0"])
>>> [name for name, p in model.named_parameters() if p.requires_grad]
['2.weight', '2.bias']
>>> lr_scales({"": model}, {"2": 0.1, "2.bias": 0.5})
{'': {'2.weight': 0.1, '2.bias': 0.5}}
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from difflib import get_close_matches
from math import inf
from typing import Literal

from torch import nn

from coterie.core.errors import Mistake
from coterie.models.classifier import classifier

HEAD = "head_parameters"
"""The attribute by which a model may say the names of its head's parameters itself."""

Parts = Sequence[str] | Literal["all but head"]


def head(model: nn.Module) -> frozenset[str]:
    """Names of the parameters that belong to the model's classes and not to its inputs: those that it says itself, or
    of its last linear layer, or else of its last layer that has any.
    """
    said: frozenset[str] | None = getattr(model, HEAD, None)
    if said is not None:
        return said
    last = classifier(model)
    if last is None:
        last = [name for name, m in model.named_modules() if any(True for _ in m.parameters(recurse=False))][-1]
    return frozenset(_under(last, (name for name, _ in model.named_parameters(remove_duplicate=False))))


def freeze(models: Mapping[str, nn.Module], parts: Parts) -> None:
    """Freeze parts of models, in place: their parameters are no longer trained, nor are the statistics of their
    normalisation layers.

    Args:
        models: by name. Each part must be one of at least one of them.
        parts: names, or "all but head".

    Raises:
        Mistake: there is no such part, or a model has nothing left to train.
    """
    names = {key: [name for name, _ in model.named_parameters()] for key, model in models.items()}
    if not isinstance(parts, str):
        _known("pretrain.freeze", parts, models)
    for key, model in models.items():
        keep = head(model) if isinstance(parts, str) else frozenset(names[key]).difference(*_each(parts, names[key]))
        for name, parameter in model.named_parameters():
            if name not in keep:
                parameter.requires_grad_(False)
        if not any(parameter.requires_grad for parameter in model.parameters()):
            raise Mistake(f"pretrain.freeze = {_shown(parts)}: nothing is left to train; leave some parts out")


def lr_scales(models: Mapping[str, nn.Module], factors: Mapping[str, float]) -> dict[str, dict[str, float]]:
    """For each model the factor on the learning rate of each of its parameters that has one; where one part is within
    another, the inner one's.

    Args:
        models: by name. Each part must be one of at least one of them.
        factors: part -> factor, above 0.

    Raises:
        Mistake: there is no such part, it is frozen, or a factor is not above 0.
    """
    key = "pretrain.lr_scale"
    for part, factor in factors.items():
        if not 0 < factor < inf:
            raise Mistake(f'{key}."{part}" = {factor}: it must be a number above 0; pretrain.freeze stops a part')
    _known(key, factors, models)
    trained = {n: [name for name, p in model.named_parameters() if p.requires_grad] for n, model in models.items()}
    for part in factors:
        if not any(_under(part, names) for names in trained.values()):
            raise Mistake(f'{key}."{part}" = {factors[part]}: this part is frozen and has no learning rate')
    outer_first = sorted(factors, key=lambda part: part.count("."))
    return {n: {name: factors[p] for p in outer_first for name in _under(p, names)} for n, names in trained.items()}


def _each(parts: Iterable[str], names: Sequence[str]) -> list[list[str]]:
    return [_under(part, names) for part in parts]


def _under(part: str, names: Iterable[str]) -> list[str]:
    """Which of the names belong to a part."""
    return [name for name in names if name == part or name.startswith(f"{part}.") or not part]


def _known(key: str, parts: Iterable[str], models: Mapping[str, nn.Module]) -> None:
    """Every part has parameters in one of the models.

    Raises:
        Mistake: one has none; the sentence has names that are near.
    """
    names = [name for model in models.values() for name, _ in model.named_parameters()]
    every = dict.fromkeys(".".join(name.split(".")[:k]) for name in names for k in range(1, name.count(".") + 2))
    for part in parts:
        if not part or not _under(part, names):
            near = get_close_matches(part, every, n=3)
            top = ", ".join(dict.fromkeys(name.split(".")[0] for name in names))
            hint = f"did you mean {' or '.join(near)}?" if near else f"there are {top}, and what is inside them"
            raise Mistake(f'{key}: "{part}" is no part of the model with parameters; {hint}')


def _shown(parts: Parts) -> str:
    return f'"{parts}"' if isinstance(parts, str) else str(list(parts))
