"""BatchNorm's statistics, measured on examples at given weights.

The weights of a model between two others lie between theirs, but the activations of its BatchNorm layers do not. With
averaged statistics, what is measured there would depend on the statistics more than on the weights.
"""

from __future__ import annotations

import copy
from collections.abc import Callable

import torch
from torch import nn
from torch.func import functional_call

from coterie.core.engine import Engine, as_input
from coterie.core.examples import Examples
from coterie.core.normaliser import statistic_names
from coterie.core.tree import Tree
from coterie.models.frozen_values import frozen_norms
from coterie.models.layers import MaskedBatchNorm, Scope, swap_layers


def recalibration(model: nn.Module, examples: Examples, engine: Engine, batch: int = 1000) -> Callable[[Tree], Tree]:
    """Return a function that replaces the running statistics in a model's weights by those measured on examples.

    The statistics are those of every BatchNorm layer, found by type, in one forward without labels, dropout or
    augmentation, in which these layers normalise by the batch. Up to `batch` examples, mean and unbiased variance are
    those of all examples together. With more, they are means over equal batches, as `torch.optim.swa_utils.update_bn`
    takes them. Other buffers and frozen layers stay unchanged.

    Args:
        model: gives the architecture.
        examples: what the statistics are measured on.
        engine: gives device and type.
        batch: the largest number of examples in a forward.
    """
    still = frozen_norms(model)
    copied = swap_layers(copy.deepcopy(model), Scope()).eval().requires_grad_(False).to(engine.device, engine.dtype)
    layers = {
        name: layer
        for name, layer in copied.named_modules()
        if isinstance(layer, MaskedBatchNorm) and layer.moves and name not in still
    }
    for layer in layers.values():
        layer.train()
        layer.momentum = None  # the mean over all that it sees
    parts = torch.arange(len(examples)).tensor_split(-(-len(examples) // batch) or 1)

    @torch.no_grad()
    def recalibrate(weights: Tree) -> Tree:
        """Return the weights with running statistics measured on the examples."""
        if not layers:
            return weights
        held = {**weights["params"], **weights["buffers"]}
        for name in layers:
            held |= {statistic: torch.zeros_like(held[statistic]) for statistic in statistic_names(name)}
        for rows in parts:
            functional_call(copied, held, (as_input(examples.batch(rows)[0], engine),))
        return {**weights, "buffers": {name: held[name] for name in weights["buffers"]}}

    return recalibrate
