"""What a model may ask of the data's shape, with the sentence that says so when it does not get it."""

from __future__ import annotations

from collections.abc import Sequence
from math import prod

from torch import nn
from torch.nn.parameter import is_lazy

from coterie.core.errors import Mistake


def image(model: str, in_shape: Sequence[int], smallest: int) -> tuple[int, int, int]:
    """(C, H, W) of an image that is at least `smallest` pixels high and wide.

    Raises:
        Mistake: `in_shape` is no image's, or the image is too small.
    """
    if len(in_shape) != 3 or min(in_shape[1:]) < smallest or in_shape[0] < 1:
        raise Mistake(
            f"model.name = {model} takes images of shape [channels, height, width], {smallest} x {smallest} or larger, "
            f"but an example has shape {list(in_shape)}; mlp and logistic take any shape"
        )
    channels, height, width = in_shape
    return channels, height, width


def sequence(model: str, in_shape: Sequence[int]) -> int:
    """T of a sequence of tokens.

    Raises:
        Mistake: `in_shape` is no sequence's.
    """
    if len(in_shape) != 1 or in_shape[0] < 1:
        raise Mistake(
            f"model.name = {model} takes sequences of tokens, of shape [length], but an example has shape "
            f"{list(in_shape)}; choose another model for these data"
        )
    return in_shape[0]


def features(model: str, in_shape: Sequence[int]) -> int:
    """How many numbers an example has, whatever its shape.

    Raises:
        Mistake: it has none.
    """
    if not in_shape or prod(in_shape) < 1:
        raise Mistake(
            f"model.name = {model} takes examples of one or more numbers, but an example has shape {list(in_shape)}"
        )
    return prod(in_shape)


def sized(model: str, made: nn.Module) -> nn.Module:
    """The model, which knows the shapes of all its weights.

    Raises:
        Mistake: a layer learns them from its first input, such as `torch.nn.LazyLinear`.
    """
    for name, module in made.named_modules():
        if any(is_lazy(held) for held in (*module._parameters.values(), *module._buffers.values())):
            raise Mistake(
                f"{model}: its layer {name or type(module).__name__} learns its size from its first input, but weights "
                "are needed before there is one; give the layer its size"
            )
    return made
