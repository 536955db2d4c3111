"""Layers that `torch.nn.utils` or `torch.ao.quantization` has rewritten, and that clients cannot train together.

A parametrisation that computes the weight from its own parameters alone, as weight_norm and orthogonal do, is trained
as any layer. Others keep in buffers what belongs to the weights or the data of one client, and the mean over clients
belongs to none. The mean of the singular vectors of spectral_norm is shorter than 1, so the weight would have a norm
far above 1. The mean of the smallest values that observers saw is not the smallest, and a zero point is a whole number.
"""

from __future__ import annotations

from collections.abc import Iterator

from torch import nn
from torch.ao.quantization import FakeQuantizeBase, ObserverBase
from torch.nn.modules.batchnorm import _BatchNorm
from torch.nn.utils import parametrize
from torch.nn.utils.parametrizations import _SpectralNorm
from torch.nn.utils.spectral_norm import SpectralNorm

STATELESS = (
    "register a parametrisation that computes w / torch.linalg.matrix_norm(w, 2), or use "
    "torch.nn.utils.parametrizations.weight_norm"
)
QUANTISED = ("torch.ao.nn.quantized", "torch.ao.nn.intrinsic.quantized")
"""The packages of layers whose weights are whole numbers."""


def find_obstacles(model: nn.Module) -> Iterator[str]:
    """Yield why rewritten layers of a module cannot be trained by several clients, a sentence each."""
    for name, module in model.named_modules():
        where = f"its layer {name}" if name else "it"
        if isinstance(module, ObserverBase | FakeQuantizeBase):
            yield (
                f"{where} observes values for quantisation, and the mean of what clients observe is wrong; train the "
                "model without it, and quantise the model that the run leaves"
            )
        if type(module).__module__.startswith(QUANTISED):
            yield f"{where} is quantised and cannot be trained; give the model as it was before"
        hooks = module._forward_pre_hooks.values()
        if isinstance(module, _SpectralNorm) or any(isinstance(hook, SpectralNorm) for hook in hooks):
            layer = name.partition(".parametrizations.")[0]
            yield (
                f"its layer {layer} has a spectral_norm, which keeps singular vectors of each client's weights, and "
                f"their mean is wrong for the mean of the weights; {STATELESS}"
            )
        if isinstance(module, _BatchNorm) and parametrize.is_parametrized(module):
            yield f"{where} is a BatchNorm with a parametrisation; leave that out"
