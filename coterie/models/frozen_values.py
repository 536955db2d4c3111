"""Find what is never trained in a model, by `requires_grad`, which is how PyTorch's users freeze.

It is a constant of the architecture: it is not broadcast, updated, aggregated or kept by a client.

>>> model = nn.Sequential(nn.Linear(2, 3), nn.BatchNorm1d(3), nn.Linear(3, 2))
>>> _ = model[1].requires_grad_(False)
>>> sorted(frozen_values(model))
['1.bias', '1.num_batches_tracked', '1.running_mean', '1.running_var', '1.weight']
"""

from __future__ import annotations

from collections.abc import Iterator

from torch import nn
from torch.nn.modules.batchnorm import _NormBase

from coterie.core.tree import Tree


def frozen_values(model: nn.Module) -> Tree:
    """Return copies of frozen parameters and of frozen layers' running statistics, by name in the `state_dict`."""
    state = model.state_dict(keep_vars=True)
    constants: Tree = {name: p for name, p in model.named_parameters() if not p.requires_grad}
    norms = frozen_norms(model)
    constants |= {name: b for name, b in model.named_buffers() if name.rpartition(".")[0] in norms}
    return {name: value.detach().clone() for name, value in constants.items() if name in state}


def frozen_norms(model: nn.Module) -> frozenset[str]:
    """Return the names of the layers with running statistics that never change, and that normalise in training too.

    A layer is frozen with its own parameters; one without parameters, with the smallest part of the model around it
    that has some.
    """
    norms = [name for name, module in model.named_modules() if isinstance(module, _NormBase)]
    return frozenset(name for name in norms if not _is_trained(model, name))


def _is_trained(model: nn.Module, name: str) -> bool:
    """Return whether any parameter of a layer, or of the smallest part around it that has some, is trained."""
    around = next((part for part in _outwards(model, name) if any(True for _ in part.parameters())), None)
    return around is None or any(p.requires_grad for p in around.parameters())


def _outwards(model: nn.Module, name: str) -> Iterator[nn.Module]:
    """Yield the module of that name, the one that contains it, and so on, up to the model."""
    while name:
        yield model.get_submodule(name)
        name = name.rpartition(".")[0]
    yield model
