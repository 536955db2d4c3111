"""What of a model is never trained: found by `requires_grad`, which is how PyTorch's users say it.

It is a constant of the architecture: not part of what is broadcast, updated, aggregated or kept by a client.

>>> model = nn.Sequential(nn.Linear(2, 3), nn.BatchNorm1d(3), nn.Linear(3, 2))
>>> _ = model[1].requires_grad_(False)
>>> sorted(frozen(model))
['1.bias', '1.num_batches_tracked', '1.running_mean', '1.running_var', '1.weight']
"""

from __future__ import annotations

from collections.abc import Iterator

from torch import nn
from torch.nn.modules.batchnorm import _NormBase

from coterie.core.tree import Tree


def frozen(model: nn.Module) -> Tree:
    """Copies of frozen parameters and of frozen layers' running statistics, by their names in the `state_dict`."""
    saved = model.state_dict(keep_vars=True)
    still: Tree = {name: p for name, p in model.named_parameters() if not p.requires_grad}
    norms = frozen_norms(model)
    still |= {name: b for name, b in model.named_buffers() if name.rpartition(".")[0] in norms}
    return {name: value.detach().clone() for name, value in still.items() if name in saved}


def frozen_norms(model: nn.Module) -> frozenset[str]:
    """Names of the layers with running statistics that stay as they are, and are normalised by in training too.

    A layer follows its own parameters; one without any follows the smallest part of the model around it that has some.
    """
    norms = [name for name, module in model.named_modules() if isinstance(module, _NormBase)]
    return frozenset(name for name in norms if not _is_trained(model, name))


def _is_trained(model: nn.Module, name: str) -> bool:
    around = next((part for part in _outwards(model, name) if any(True for _ in part.parameters())), None)
    return around is None or any(p.requires_grad for p in around.parameters())


def _outwards(model: nn.Module, name: str) -> Iterator[nn.Module]:
    """The module of that name, the one it is part of, and so on."""
    while name:
        yield model.get_submodule(name)
        name = name.rpartition(".")[0]
    yield model
