"""How BatchNorm layers normalise while they train: a pure function that an algorithm supplies.

Without one, a layer normalises by its batch, as PyTorch's does. With one, each layer hands it a `LayerInput` in every
training forward, gets back normalised values and what to report, and then applies its own weight and bias. So a method
that changes BatchNorm is a function in the method's own file; models and their layers know nothing about it. See
`coterie.core.task.Task.apply_with`.

Legend: B batch, C channels.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from math import prod
from typing import NamedTuple, TypeAlias

import torch
from torch import Tensor


class Moments(NamedTuple):
    """Mean and variance of a set of values, channel by channel."""

    mean: Tensor  # [C]
    var: Tensor  # [C], biased: divided by the number of values
    number: Tensor  # [] of values per channel; where it is 0, mean and var have no meaning

    def merge(self, other: Moments) -> Moments:
        """Return the moments of both sets together (Chan, Golub and LeVeque 1979).

        No difference of two large squares is taken.

        >>> two, one = Moments(torch.tensor([1.0]), torch.tensor([4.0]), torch.tensor(2)), torch.tensor([4.0])
        >>> two.merge(Moments(one, torch.zeros(1), torch.tensor(1))).mean
        tensor([2.])
        """
        number = self.number + other.number
        share = other.number / number.clamp(min=1)
        gap = other.mean - self.mean
        between = gap * gap * share * (1 - share)
        mean, within = torch.lerp(self.mean, other.mean, share), torch.lerp(self.var, other.var, share)
        return Moments(mean, within + between, number)


class LayerInput(NamedTuple):
    """What a BatchNorm layer gives the normaliser in one forward."""

    x: Tensor  # [B, C, ...]
    batch: Moments  # of the real rows of x; mean and variance have a gradient
    running_mean: Tensor  # [C]
    running_var: Tensor  # [C]
    eps: float
    mask: Tensor | None  # [B] bool, which rows are real; None: all are
    extra: Mapping[str, Tensor]  # the layer's further parameters: "phi" where params have "<layer>.phi"


Normaliser: TypeAlias = Callable[[LayerInput], tuple[Tensor, Moments]]
"""layer -> the normalised values [B, C, ...], before weight and bias, and the moments that the layer reports.

It must not branch in Python on the value of a tensor, since an engine may run it for many clients at once. The moments
are reported without their gradient. Where a forward passes a layer twice, they are merged.
"""


def batch_moments(x: Tensor, mask: Tensor | None) -> Moments:
    """Return the moments of the real rows of x [B, C, ...]."""
    axes = [0, *range(2, x.dim())]
    per_row = prod(x.shape[2:])
    if mask is None:
        number = torch.tensor(float(x.shape[0] * per_row), dtype=x.dtype, device=x.device)
        var, mean = torch.var_mean(x, axes, correction=0)
        return Moments(mean, var, number)
    real = mask.to(x.dtype).reshape(-1, *[1] * (x.dim() - 1))  # [B, 1, ...]
    number = mask.sum().to(x.dtype) * per_row
    safe = number.clamp(min=1)
    mean = (x * real).sum(axes) / safe
    centred = (x - per_channel(mean, x)) * real
    return Moments(mean, (centred * centred).sum(axes) / safe, number)


def normalise(x: Tensor, mean: Tensor, var: Tensor, eps: float) -> Tensor:
    """Return (x - mean) / sqrt(var + eps) for x [B, C, ...] and [C]."""
    return (x - per_channel(mean, x)) * per_channel(torch.rsqrt(var + eps), x)


def per_channel(values: Tensor, x: Tensor) -> Tensor:
    """Return values [C] in a shape [1, C, 1, ...] that broadcasts over x [B, C, ...]."""
    return values.reshape(1, -1, *[1] * (x.dim() - 2))


def statistic_names(layer: str) -> tuple[str, str, str]:
    """Return the names of a BatchNorm layer's buffers: running mean, running variance, number of batches."""
    return (
        leaf_name(layer, "running_mean"),
        leaf_name(layer, "running_var"),
        leaf_name(layer, "num_batches_tracked"),
    )


def leaf_name(layer: str, leaf: str) -> str:
    """Return the full name of a layer's parameter or buffer; a layer that is the whole model has the name ""."""
    return f"{layer}.{leaf}" if layer else leaf
