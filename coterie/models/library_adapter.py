"""Models of other libraries with a forward like that of ours, [B, ...] -> [B, C], and with their own names.

A wrapper around such a model would put a prefix before every name in its `state_dict`. So the model gets another class
instead, derived from its own, and what a run saves loads into the original class as it is.

>>> class Theirs(nn.Module):
...     def forward(self, pixels):
...         return {"logits": 2 * pixels}
>>> model = adapted(Theirs(), lambda forward, self, x: forward(pixels=x)["logits"])
>>> model(torch.ones(1)), original(model).__name__
(tensor([2.]), 'Theirs')
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from coterie.core.errors import Mistake
from coterie.models import shape_checks

Call = Callable[[Callable[..., Any], nn.Module, Tensor], Tensor]
"""(the model's own forward, the model, x [B, ...]) -> outputs [B, ...]."""

MEAN, STD = "pixel_mean", "pixel_std"
"""Buffers of an image model, which its `state_dict` leaves out."""


def adapted(model: nn.Module, call: Call, **attributes: Any) -> nn.Module:
    """The same object with another forward, and with attributes of its class."""
    own = type(model)

    def forward(self: nn.Module, x: Tensor) -> Tensor:
        return call(partial(own.forward, self), self, x)

    named = {"forward": forward, "original": own, "__module__": own.__module__, "__doc__": own.__doc__}
    model.__class__ = type(own.__name__, (own,), named | attributes)
    return model


def original(model: nn.Module) -> type[nn.Module]:
    """The class that a model had before it was adapted."""
    found: type[nn.Module] = getattr(model, "original", type(model))
    return found


def colours(name: str, in_shape: Sequence[int]) -> None:
    """Such models take images of three channels; of one, it is taken three times.

    Raises:
        Mistake: an example is something else.
    """
    channels, _, _ = shape_checks.image(name, in_shape, smallest=1)
    if channels not in (1, 3):
        raise Mistake(f'model.name = "{name}": takes images of 1 or 3 channels, but these have {channels}')


def remember_pixels(model: nn.Module, mean: Sequence[float] | None, std: Sequence[float] | None) -> None:
    """Let the model keep by what its images were normalised, channel by channel; None: they were not."""
    if mean is not None and std is not None:
        for name, values in ((MEAN, mean), (STD, std)):
            model.register_buffer(name, torch.tensor(values).reshape(1, -1, 1, 1), persistent=False)


def pixels(model: nn.Module, x: Tensor, size: tuple[int, int] | None) -> Tensor:
    """Images as the model knows them: x [B, 1 or 3, H, W] from 0 to 1 -> [B, 3, *size], normalised.

    Args:
        model: after `remember_pixels`.
        x: the images.
        size: height and width; None: as they are.
    """
    if x.shape[1] == 1:
        x = x.expand(-1, 3, -1, -1)
    if size is not None and tuple(x.shape[2:]) != size:
        x = F.interpolate(x, size, mode="bilinear", antialias=True)
    mean, std = getattr(model, MEAN, None), getattr(model, STD, None)
    return x if mean is None or std is None else (x - mean) / std
