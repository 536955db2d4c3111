"""Give models of other libraries a forward like that of our models, and keep the names of their weights.

A wrapper around such a model would put a prefix before every name in its `state_dict`. So the model gets another class
instead, derived from its own, and what a run saves loads into the original class unchanged.

>>> class Theirs(nn.Module):
...     def forward(self, pixels):
...         return {"logits": 2 * pixels}
>>> model = adapt(Theirs(), lambda forward, self, x: forward(pixels=x)["logits"])
>>> model(torch.ones(1)), original_class(model).__name__
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
from coterie.models.shape_checks import image_shape

Call = Callable[[Callable[..., Any], nn.Module, Tensor], Tensor]
"""(the model's own forward, the model, x [B, ...]) -> outputs [B, ...]."""

MEAN, STD = "pixel_mean", "pixel_std"
"""Buffers of an image model, which its `state_dict` leaves out."""


def adapt(model: nn.Module, call: Call, **attributes: Any) -> nn.Module:
    """Give the model another forward, in place, and its class some attributes; return it."""
    own = type(model)

    def forward(self: nn.Module, x: Tensor) -> Tensor:
        """Run `call` with the model's own forward."""
        return call(partial(own.forward, self), self, x)

    members = {"forward": forward, "original": own, "__module__": own.__module__, "__doc__": own.__doc__}
    model.__class__ = type(own.__name__, (own,), members | attributes)
    return model


def original_class(model: nn.Module) -> type[nn.Module]:
    """Return the class that a model had before it was adapted."""
    original: type[nn.Module] = getattr(model, "original", type(model))
    return original


def require_one_or_three_channels(name: str, in_shape: Sequence[int]) -> None:
    """Refuse examples that are not images of one or three channels; one channel is repeated three times.

    Raises:
        Mistake: an example has another shape.
    """
    channels, _, _ = image_shape(name, in_shape, smallest=1)
    if channels not in (1, 3):
        raise Mistake(f"it takes images of 1 or 3 channels, but these have {channels}", key="name", value=name)


def remember_normalisation(model: nn.Module, mean: Sequence[float] | None, std: Sequence[float] | None) -> None:
    """Store in the model the mean and deviation by which its images are normalised; nothing if one is None."""
    if mean is not None and std is not None:
        for name, values in ((MEAN, mean), (STD, std)):
            model.register_buffer(name, torch.tensor(values).reshape(1, -1, 1, 1), persistent=False)


def prepare_images(model: nn.Module, x: Tensor, size: tuple[int, int] | None) -> Tensor:
    """Return images as the model takes them: x [B, 1 or 3, H, W] from 0 to 1 -> [B, 3, *size], normalised.

    Args:
        model: after `remember_normalisation`.
        x: the images.
        size: height and width; None: those of x.
    """
    if x.shape[1] == 1:
        x = x.expand(-1, 3, -1, -1)
    if size is not None and tuple(x.shape[2:]) != size:
        x = F.interpolate(x, size, mode="bilinear", antialias=True)
    mean, std = getattr(model, MEAN, None), getattr(model, STD, None)
    return x if mean is None or std is None else (x - mean) / std
