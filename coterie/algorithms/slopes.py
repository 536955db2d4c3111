"""What BatchNorm's gradient has to know of other examples, shared between clients as (M, V) are.

From the gradient g of its normalised values y, BatchNorm subtracts mean(g) + y mean(y g), both over the whole batch. A
client has only its own. So clients send the sums of g and of y g in every layer, their "slopes"; the server pools them
and averages over rounds; and each client subtracts what one client with the pooled batch would, if it were that of the
last rounds. But for a factor, slopes are the gradients by the layer's bias and weight.

Where an algorithm does without, trees have no part "slopes", and the functions here give an empty one.

Legend: C channels.
"""

from __future__ import annotations

from collections.abc import Iterable

import torch

from coterie.core import tree
from coterie.core.tree import Tree
from coterie.models.functional import statistics_of

PART = "slopes"


def none_yet(buffers: Tree, layers: Iterable[str]) -> Tree:
    """Before the first round: {"slopes": layer -> [2, C] of zeros}."""
    means = {layer: buffers[statistics_of(layer)[0]] for layer in layers}
    return {PART: {layer: torch.zeros_like(mean).repeat(2, 1) for layer, mean in means.items()}}


def part(whole: Tree) -> Tree:
    """What a tree has of them."""
    return {PART: whole[PART]} if PART in whole else {}


def given(shared: Tree) -> Tree:
    """As parameters, where a forward looks for them; see `coterie.core.task.Task.shared`."""
    return {_leaf(layer): slope for layer, slope in shared.get(PART, {}).items()}


def added(before: Tree, grads: Tree) -> Tree:
    """The sum over the steps so far, and one more step's, from the gradients by what was given."""
    return {PART: {layer: s + grads[_leaf(layer)] for layer, s in before[PART].items()}} if PART in before else {}


def moved(state: Tree, pooled: Tree, share: float) -> Tree:
    """(1 - share) of the old and `share` of the new."""
    return tree.map(lambda old, new: torch.lerp(old, new, share), part(state), part(pooled))


def _leaf(layer: str) -> str:
    return f"{layer}.slopes" if layer else "slopes"
