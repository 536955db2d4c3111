"""Checks of shapes: whether a model can take the examples, and whether it knows the sizes of its weights."""

from __future__ import annotations

from collections.abc import Sequence
from math import prod

from torch import nn
from torch.nn.parameter import is_lazy

from coterie.core.errors import UNSET, Mistake


def image_shape(model: str, in_shape: Sequence[int], smallest: int) -> tuple[int, int, int]:
    """Return (C, H, W); refuse a shape unless it is that of an image of at least `smallest` pixels each way.

    Args:
        model: the name of the model that needs it, for messages.
        in_shape: the shape of one example.
        smallest: in pixels.

    Raises:
        Mistake: `in_shape` is not that of an image, or the image is too small.
    """
    if len(in_shape) != 3 or min(in_shape[1:]) < smallest or in_shape[0] < 1:
        raise Mistake(
            f"it takes images of shape [channels, height, width], {smallest} x {smallest} or larger, but an example "
            f"has shape {list(in_shape)}; mlp and logistic take any shape",
            key="name",
            value=model,
        )
    channels, height, width = in_shape
    return channels, height, width


def sequence_length(model: str, in_shape: Sequence[int]) -> int:
    """Return the number of tokens of an example, and refuse a shape that is not a sequence's; see `image_shape`.

    Raises:
        Mistake: `in_shape` is not that of a sequence.
    """
    if len(in_shape) != 1 or in_shape[0] < 1:
        raise Mistake(
            f"it takes sequences of tokens, of shape [length], but an example has shape {list(in_shape)}; choose "
            "another model for these data",
            key="name",
            value=model,
        )
    return in_shape[0]


def num_features(model: str, in_shape: Sequence[int]) -> int:
    """Return how many numbers an example of any shape has, and refuse an empty one; see `image_shape`.

    Raises:
        Mistake: it has none.
    """
    if not in_shape or prod(in_shape) < 1:
        raise Mistake(
            f"it takes examples of one or more numbers, but an example has shape {list(in_shape)}",
            key="name",
            value=model,
        )
    return prod(in_shape)


def require_known_sizes(model: nn.Module, key: str, value: object = UNSET) -> None:
    """Refuse a model with a layer that learns its size from its first input, such as `torch.nn.LazyLinear`.

    Args:
        model: the model.
        key: the argument that gave it, and its `value`, for messages.

    Raises:
        Mistake: it has such a layer.
    """
    for name, module in model.named_modules():
        if any(is_lazy(tensor) for tensor in (*module._parameters.values(), *module._buffers.values())):
            raise Mistake(
                f"its layer {name or type(module).__name__} learns its size from its first input, but weights are "
                "needed before there is one; give the layer its size",
                key=key,
                value=value,
            )
