"""Choose how images lie in memory.

On a CPU, convolutions and pooling are much faster where the channels of a pixel lie side by side ("channels last").
Only strides change; shapes and values stay the same.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TypeVar

import torch
from torch import Tensor, nn

T = TypeVar("T")


class ImageLayout:
    """The layout of images that suits one model.

    It is channels last where the model has convolutions. A model that reshapes with `view` does not allow that layout;
    the first forward shows it, and the plain layout then serves all others.
    """

    def __init__(self, model: nn.Module) -> None:
        self.channels_last = any(isinstance(module, nn.Conv2d) for module in model.modules())

    def __call__(self, forward: Callable[[Tensor], T], x: Tensor) -> T:
        """Return forward(x), with x in the layout that suits the model."""
        if not (self.channels_last and x.dim() == 4 and x.device.type == "cpu") or under_vmap():
            return forward(x)
        try:
            return forward(channels_last(x))
        except RuntimeError as error:
            if "view size is not compatible" not in str(error):
                raise
            self.channels_last = False
            return forward(x)


def use_plain_layout_for_constants(layer: nn.GroupNorm) -> None:
    """Make the layer take inputs without a gradient, such as the examples, in the plain layout.

    With channels last, its backward would crash the process for such inputs (PyTorch 2.13, on a CPU).
    """
    layer.register_forward_pre_hook(lambda _, inputs: tuple(x if x.requires_grad else x.contiguous() for x in inputs))


def channels_last(x: Tensor) -> Tensor:
    """Return a copy of x [B, C, H, W] with the strides of channels last.

    The strides change also where C = 1 and every layout would do, since PyTorch goes by strides.
    """
    return torch.empty_like(x, memory_format=torch.channels_last).copy_(x)


def under_vmap() -> bool:
    """Return whether this runs under `torch.func.vmap`, which knows the plain layout only."""
    running = torch._C._functorch.get_interpreter_stack() or []
    return any(transform.key() == torch._C._functorch.TransformType.Vmap for transform in running)
