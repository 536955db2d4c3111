"""Slopes: the sums over other clients' examples that BatchNorm's gradient needs, shared as (M, V) are.

From the gradient g of its normalised values y, BatchNorm subtracts mean(g) + y mean(y g), both over the whole batch. A
client has only its own. So clients send the sums of g and of y g in every layer, the layer's "slopes". The server pools
them and averages over rounds. Each client then subtracts what one client with the pooled batch would subtract if that
batch were like those of the last rounds. Up to a factor, slopes are the gradients by the layer's bias and weight.

Where the gradient does not need them, trees have no part "slopes", and the functions here return an empty tree.

Legend: C channels.
"""

from __future__ import annotations

from collections.abc import Iterable

import torch

from coterie.core import tree
from coterie.core.normaliser import leaf_name, statistic_names
from coterie.core.tree import Tree

PART = "slopes"


def initial_slopes(buffers: Tree, layers: Iterable[str]) -> Tree:
    """Return the slopes before the first round: {"slopes": layer -> [2, C] of zeros}."""
    means = {layer: buffers[statistic_names(layer)[0]] for layer in layers}
    return {PART: {layer: torch.zeros_like(mean).repeat(2, 1) for layer, mean in means.items()}}


def slopes_part(whole: Tree) -> Tree:
    """Return the slopes of a tree as {"slopes": ...}; an empty tree if it has none."""
    return {PART: whole[PART]} if PART in whole else {}


def slopes_as_parameters(carry: Tree) -> Tree:
    """Return the slopes under the names by which the normaliser finds them: <layer>.slopes."""
    return {leaf_name(layer, PART): slope for layer, slope in carry.get(PART, {}).items()}


def add_slopes(before: Tree, grads: Tree) -> Tree:
    """Return the slopes of all steps so far and one more, whose slopes are among its gradients as <layer>.slopes."""
    if PART not in before:
        return {}
    return {PART: {layer: s + grads[leaf_name(layer, PART)] for layer, s in before[PART].items()}}


def move_slopes(state: Tree, pooled: Tree, share: float) -> Tree:
    """Return (1 - share) of the server's slopes plus `share` of the pooled ones."""
    return tree.map(lambda old, new: torch.lerp(old, new, share), slopes_part(state), slopes_part(pooled))
