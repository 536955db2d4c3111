"""Which convolutions of a model feed a BatchNorm layer and nothing else, read from the model's graph."""

from __future__ import annotations

from torch import fx, nn
from torch.nn.modules.batchnorm import _BatchNorm
from torch.nn.modules.conv import _ConvNd

from coterie.core.errors import Mistake, reason
from coterie.models.frozen_values import frozen_norms

TRANSPOSED = (nn.ConvTranspose1d, nn.ConvTranspose2d, nn.ConvTranspose3d)
"""Convolutions whose first axis counts inputs, not filters."""


def kernels_before_norms(model: nn.Module) -> tuple[str, ...]:
    """Return the names of the kernels whose convolution's output goes straight into a BatchNorm layer that trains.

    The convolutions that take the model's own input are left out, and so are those whose output is used elsewhere too.

    Raises:
        Mistake: the model's graph cannot be read, because its forward branches on a value.

    >>> net = nn.Sequential(nn.Conv2d(1, 2, 3), nn.BatchNorm2d(2), nn.Conv2d(2, 4, 3), nn.BatchNorm2d(4))
    >>> kernels_before_norms(net)
    ('2.weight',)
    """
    modules, still = dict(model.named_modules(remove_duplicate=False)), frozen_norms(model)
    found: dict[str, None] = {}
    for node in _trace(model).nodes:
        layer = modules.get(node.target) if node.op == "call_module" else None
        if not isinstance(layer, _ConvNd) or isinstance(layer, TRANSPOSED) or not layer.weight.requires_grad:
            continue
        takes_input = any(source.op == "placeholder" for source in node.all_input_nodes)
        norms = [modules.get(user.target) if user.op == "call_module" else None for user in node.users]
        feeds_norm = bool(norms) and all(isinstance(norm, _BatchNorm) for norm in norms)
        if feeds_norm and not takes_input and not any(user.target in still for user in node.users):
            found[f"{node.target}.weight"] = None
    return tuple(found)


class _Tracer(fx.Tracer):
    """Reads a graph whose leaves are PyTorch's own layers and BatchNorm layers of any class."""

    def is_leaf_module(self, m: nn.Module, module_qualified_name: str) -> bool:
        return isinstance(m, _BatchNorm) or super().is_leaf_module(m, module_qualified_name)


def _trace(model: nn.Module) -> fx.Graph:
    """Return the model's graph; refuse a model whose graph cannot be read."""
    try:
        graph: fx.Graph = _Tracer().trace(model)
    except Exception as error:  # whatever the model's own code raises when it meets a stand-in for its input
        raise Mistake(f"the model's graph cannot be read ({reason(error)})") from error
    return graph
