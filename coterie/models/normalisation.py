"""Convert a model's BatchNorm layers to another kind of normalisation, and back.

>>> from torch import nn
>>> model = nn.Sequential(nn.Conv2d(1, 4, 3), nn.BatchNorm2d(4))
>>> grouped = convert_normalisation(model, "group", groups=2)
>>> [type(layer[1]).__name__ for layer in (model, grouped, convert_normalisation(grouped, "batch"))]
['BatchNorm2d', 'GroupNorm', 'BatchNorm2d']

FBN needs no conversion: it trains the model with its BatchNorm layers, and the weights that it saves load into it.
"""

from __future__ import annotations

import copy
from typing import Any, Literal, cast

from torch import nn
from torch.nn.modules.batchnorm import _BatchNorm

from coterie.core.errors import Mistake, require

Normalisation = Literal["batch", "group", "layer"]

ORIGIN = "converted_from"
"""The attribute of a converted layer that holds the BatchNorm layer it came from, for the way back."""


def convert_normalisation(model: nn.Module, normalisation: Normalisation, groups: int = 2) -> nn.Module:
    """Return a copy of the model with every BatchNorm layer, found by type, replaced; weights and biases are copied.

    "group" is GroupNorm. "layer" is GroupNorm with one group: LayerNorm over channels and space with a weight and a
    bias for each channel, which for [B, C] is `nn.LayerNorm`. Neither keeps statistics of the data or depends on other
    examples. "batch" turns converted layers back into BatchNorm, with the running statistics that they had before.

    Args:
        model: the model, which stays unchanged.
        normalisation: "batch", "group" or "layer".
        groups: for "group"; it must divide the channels of every layer.

    Raises:
        Mistake: `normalisation` is none of the three, or `groups` does not divide a layer's channels.
    """
    right = normalisation in ("batch", "group", "layer")
    require("normalisation", normalisation, right, '"batch", "group" or "layer"')
    require("groups", groups, groups >= 1, "1 or more")
    done: dict[nn.Module, nn.Module] = {}

    def replace(module: nn.Module) -> nn.Module:
        """Return the module or its replacement, whose children are replaced too."""
        if module not in done:
            done[module] = new = _convert_layer(module, normalisation, groups)
            for name, child in new._modules.items():
                if child is not None:
                    new._modules[name] = replace(child)
        return done[module]

    return replace(copy.deepcopy(model))


def _convert_layer(module: nn.Module, normalisation: Normalisation, groups: int) -> nn.Module:
    """Return the layer that replaces a module; the module itself if it is not a layer to convert."""
    if normalisation == "batch":
        return _to_batchnorm(module)
    return _to_groupnorm(module, 1 if normalisation == "layer" else groups)


def _to_groupnorm(module: nn.Module, groups: int) -> nn.Module:
    """Return a GroupNorm with the weights of a BatchNorm, or of its earlier replacement; any other module itself."""
    source = getattr(module, ORIGIN, [module])[0]
    if not isinstance(source, _BatchNorm):
        return module
    channels = source.num_features
    if channels % groups:
        raise Mistake(f"it must divide the channels of every layer, and one has {channels}", key="groups", value=groups)
    new = nn.GroupNorm(groups, channels, eps=source.eps, affine=source.affine)
    if source.weight is not None:
        new = new.to(source.weight.device, source.weight.dtype)
    setattr(new, ORIGIN, [source])  # in a list, so that it is not a submodule and has no weights in the state_dict
    _copy_weights(cast(Any, module), new)
    return new


def _to_batchnorm(module: nn.Module) -> nn.Module:
    """Return the BatchNorm that this layer replaced, with this one's weights; any other module itself."""
    origin: list[_BatchNorm] | None = getattr(module, ORIGIN, None)
    if origin is None:
        return module
    _copy_weights(cast(Any, module), cast(Any, origin[0]))
    return origin[0]


def _copy_weights(source: nn.GroupNorm, target: nn.GroupNorm) -> None:
    for name in ("weight", "bias"):
        if getattr(source, name) is not None and getattr(target, name) is not None:
            getattr(target, name).data.copy_(getattr(source, name).data)
