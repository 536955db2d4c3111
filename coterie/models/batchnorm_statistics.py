"""BatchNorm's statistics, measured on examples at given weights.

A model between two others has weights between theirs, but the activations that its BatchNorm layers see are not between
theirs: normalising by averaged statistics then says something about the statistics, not about the weights.
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
    """weights -> the same, with the running statistics of every BatchNorm layer, found by type, as examples give them.

    One forward without labels, dropout or augmentation, in which these layers normalise by the batch. Up to `batch`
    examples, mean and unbiased variance are those of all examples together; with more, the mean over equal batches of
    each batch's, as `torch.optim.swa_utils.update_bn` takes it. Other buffers stay as they are, and so do frozen
    layers, and a model without such layers.
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
    def measured(weights: Tree) -> Tree:
        if not layers:
            return weights
        held = {**weights["params"], **weights["buffers"]}
        for name in layers:
            held |= {statistic: torch.zeros_like(held[statistic]) for statistic in statistic_names(name)}
        for rows in parts:
            functional_call(copied, held, (as_input(examples.batch(rows)[0], engine),))
        return {**weights, "buffers": {name: held[name] for name in weights["buffers"]}}

    return measured
