"""Parts of a model by name: freeze some, scale the learning rate of others, and find the head.

A part is a module or a parameter, named as in the `state_dict`: "stage1", "stage1.0.conv2", "output.bias". The head is
the part that tells the classes apart, so it is new where the classes are.

>>> model = nn.Sequential(nn.Linear(4, 3), nn.ReLU(), nn.Linear(3, 2))
>>> freeze_parts({"": model}, ["0"])
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

HEAD = "head_parameters"
"""The attribute by which a model may name the parameters of its head itself."""

Parts = Sequence[str] | Literal["all but head"]


def classifier_name(model: nn.Module) -> str | None:
    """Return the name of the model's last linear layer, in the order of its modules; None where it contains none.

    >>> classifier_name(nn.Sequential(nn.Flatten(), nn.Linear(4, 3), nn.ReLU(), nn.Linear(3, 2)))
    '3'
    """
    linear = [name for name, module in model.named_modules() if isinstance(module, nn.Linear) and name]
    return linear[-1] if linear else None


def head_names(model: nn.Module) -> frozenset[str]:
    """Return the names of the parameters of the model's head.

    They are those that the model's attribute `head_parameters` names, else those of its last linear layer, else those
    of its last layer with parameters.
    """
    own: frozenset[str] | None = getattr(model, HEAD, None)
    if own is not None:
        return own
    last = classifier_name(model)
    if last is None:
        last = [name for name, m in model.named_modules() if any(True for _ in m.parameters(recurse=False))][-1]
    return frozenset(_names_in(last, (name for name, _ in model.named_parameters(remove_duplicate=False))))


def freeze_parts(models: Mapping[str, nn.Module], freeze: Parts) -> None:
    """Freeze parts of models, in place.

    Their parameters are no longer trained, and the statistics of their normalisation layers no longer change.

    Args:
        models: by name. Each part must be one of at least one of them.
        freeze: names of parts, or "all but head".

    Raises:
        Mistake: there is no such part, or a model has nothing left to train.
    """
    shown = freeze if isinstance(freeze, str) else list(freeze)
    names = {key: [name for name, _ in model.named_parameters()] for key, model in models.items()}
    if not isinstance(freeze, str):
        for part in freeze:
            _require_part(part, models, key="freeze", value=shown)
    for key, model in models.items():
        keep = head_names(model) if isinstance(freeze, str) else _names_outside(freeze, names[key])
        for name, parameter in model.named_parameters():
            if name not in keep:
                parameter.requires_grad_(False)
        if not any(parameter.requires_grad for parameter in model.parameters()):
            raise Mistake("nothing is left to train; leave some parts out", key="freeze", value=shown)


def lr_scales(models: Mapping[str, nn.Module], lr_scale: Mapping[str, float]) -> dict[str, dict[str, float]]:
    """Return the factor on the learning rate of each parameter that has one, by model and parameter.

    Where one part is within another, the inner part's factor holds.

    Args:
        models: by name. Each part must be one of at least one of them.
        lr_scale: part -> factor, above 0.

    Raises:
        Mistake: there is no such part, it is frozen, or a factor is not above 0.
    """
    for part, factor in lr_scale.items():
        key = f'lr_scale."{part}"'
        if not 0 < factor < inf:
            raise Mistake(key=key, value=factor, allowed="a number above 0; `freeze` stops a part")
        _require_part(part, models, key=key, value=factor)
    trained = {n: [name for name, p in model.named_parameters() if p.requires_grad] for n, model in models.items()}
    for part, factor in lr_scale.items():
        if not any(_names_in(part, names) for names in trained.values()):
            raise Mistake("this part is frozen and has no learning rate", key=f'lr_scale."{part}"', value=factor)
    outer_first = sorted(lr_scale, key=lambda part: part.count("."))
    return {n: {name: lr_scale[p] for p in outer_first for name in _names_in(p, names)} for n, names in trained.items()}


def _names_in(part: str, names: Iterable[str]) -> list[str]:
    """Return the names that are `part` or lie inside it."""
    return [name for name in names if name == part or name.startswith(f"{part}.") or not part]


def _names_outside(parts: Sequence[str], names: Sequence[str]) -> frozenset[str]:
    return frozenset(names).difference(*(_names_in(part, names) for part in parts))


def _require_part(part: str, models: Mapping[str, nn.Module], key: str, value: object) -> None:
    """Refuse a part that has no parameters in any of the models; the sentence has names that are near."""
    names = [name for model in models.values() for name, _ in model.named_parameters()]
    if part and _names_in(part, names):
        return
    parts = dict.fromkeys(".".join(name.split(".")[:k]) for name in names for k in range(1, name.count(".") + 2))
    near = get_close_matches(part, parts, n=3)
    top = ", ".join(dict.fromkeys(name.split(".")[0] for name in names))
    hint = f"did you mean {' or '.join(near)}?" if near else f"there are {top}, and the parts inside them"
    raise Mistake(f'the model has no part "{part}" with parameters; {hint}', key=key, value=value)
