"""Another kind of normalisation for a model that has BatchNorm, and back.

>>> from torch import nn
>>> model = nn.Sequential(nn.Conv2d(1, 4, 3), nn.BatchNorm2d(4))
>>> grouped = convert(model, "group", groups=2)
>>> [type(layer[1]).__name__ for layer in (model, grouped, convert(grouped, "batch"))]
['BatchNorm2d', 'GroupNorm', 'BatchNorm2d']

FBN needs no conversion: it trains the model as it is, and what it saves loads into it.
"""

from __future__ import annotations

import copy
from typing import Any, Literal, cast

from torch import nn
from torch.nn.modules.batchnorm import _BatchNorm

from coterie.core.errors import Mistake

Kind = Literal["batch", "group", "layer"]

ORIGIN = "converted_from"
"""The attribute of a converted layer that holds the BatchNorm layer it came from, for the way back."""


def convert(model: nn.Module, to: Kind, groups: int = 2) -> nn.Module:
    """A copy of the model with every BatchNorm layer, found by type, replaced; weights and biases are taken over.

    "group" is GroupNorm, "layer" GroupNorm with one group: LayerNorm over channels and space with a weight and a bias
    for each channel, which for [B, C] is `nn.LayerNorm`. Neither keeps statistics of the data, and neither looks at
    other examples. "batch" turns layers that were converted back into what they were, with the running statistics of
    then.

    Args:
        to: "batch", "group" or "layer".
        groups: of "group"; it must divide the channels of every layer.

    Raises:
        Mistake: `to` is none of the three, or `groups` does not divide a layer's channels.
    """
    if to not in ("batch", "group", "layer"):
        raise Mistake(f'model.normalisation = {to}: it must be "batch", "group" or "layer"')
    if groups < 1:
        raise Mistake(f"model.groups = {groups}: it must be 1 or more")
    done: dict[nn.Module, nn.Module] = {}

    def replaced(module: nn.Module) -> nn.Module:
        if module not in done:
            done[module] = new = (
                _restored(module) if to == "batch" else _grouped(module, 1 if to == "layer" else groups)
            )
            for name, child in new._modules.items():
                if child is not None:
                    new._modules[name] = replaced(child)
        return done[module]

    return replaced(copy.deepcopy(model))


def _grouped(module: nn.Module, groups: int) -> nn.Module:
    source = getattr(module, ORIGIN, [module])[0]
    if not isinstance(source, _BatchNorm):
        return module
    channels = source.num_features
    if channels % groups:
        raise Mistake(f"model.groups = {groups}: it must divide the channels of every layer, and one has {channels}")
    new = nn.GroupNorm(groups, channels, eps=source.eps, affine=source.affine)
    if source.weight is not None:
        new = new.to(source.weight.device, source.weight.dtype)
    setattr(new, ORIGIN, [source])  # in a list, so that it is no submodule and has no weights in the state_dict
    _take_weights(cast(Any, module), new)
    return new


def _restored(module: nn.Module) -> nn.Module:
    origin: list[_BatchNorm] | None = getattr(module, ORIGIN, None)
    if origin is None:
        return module
    _take_weights(cast(Any, module), cast(Any, origin[0]))
    return origin[0]


def _take_weights(source: nn.GroupNorm, target: nn.GroupNorm) -> None:
    for name in ("weight", "bias"):
        if getattr(source, name) is not None and getattr(target, name) is not None:
            getattr(target, name).data.copy_(getattr(source, name).data)
