"""How images lie in memory. On a CPU, convolutions and pooling are much faster where the channels of a pixel lie side
by side ("channels last"), which is a matter of strides alone: shapes and values stay what they are.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TypeVar

import torch
from torch import Tensor, nn

T = TypeVar("T")


class Layout:
    """The layout that suits one model: channels last where it has convolutions, unless it reshapes with `view`, which
    that layout does not allow. The first forward shows that, and the plain layout then serves all others.
    """

    def __init__(self, model: nn.Module) -> None:
        self.channels_last = any(isinstance(module, nn.Conv2d) for module in model.modules())

    def __call__(self, forward: Callable[[Tensor], T], x: Tensor) -> T:
        """forward(x), with x in the layout that suits the model."""
        if not (self.channels_last and x.dim() == 4 and x.device.type == "cpu") or _many_clients():
            return forward(x)
        try:
            return forward(channels_last(x))
        except RuntimeError as error:
            if "view size is not compatible" not in str(error):
                raise
            self.channels_last = False
            return forward(x)


def plain_constants(layer: nn.GroupNorm) -> None:
    """Have the layer normalise in the plain layout what no gradient is asked of, such as the examples themselves or
    what frozen layers give: with channels last its backward then crashes the process (PyTorch 2.13, on a CPU).
    """
    layer.register_forward_pre_hook(lambda _, given: tuple(x if x.requires_grad else x.contiguous() for x in given))


def channels_last(x: Tensor) -> Tensor:
    """A copy of x [B, C, H, W] with the strides of that layout, also where C = 1 and every layout would do: PyTorch
    goes by strides.
    """
    return torch.empty_like(x, memory_format=torch.channels_last).copy_(x)


def _many_clients() -> bool:
    """Whether this runs under `torch.func.vmap`, which knows the plain layout only."""
    running = torch._C._functorch.get_interpreter_stack() or []
    return any(transform.key() == torch._C._functorch.TransformType.Vmap for transform in running)
