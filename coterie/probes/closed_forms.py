"""What follows from an update without any search: inputs of a dense layer, labels, and the words of a text.

    dense     dl/dW_i = sum_k d_ki x_k,  dl/db_i = sum_k d_ki      one example: x = dW_i / db_i for every row i
    labels    dl/db_c = mean_k (p_kc - [y_k = c])                  of cross-entropy, at the classifier
    tokens    dl/dE_t = 0 for every token t that is not in the text

All hold for a sum of steps too, and none of them looks at lengths: an update is lr times a gradient, clipped or not.

Geiping et al.: Inverting Gradients, NeurIPS 2020, proposition 3.1, for the dense layer. Zhao, Mopuri, Bilen: iDLG,
2020, for the label of one example. Wainakh et al.: User-Level Label Leakage from Gradients in Federated Learning,
PETS 2022, for those of several.

Legend: B examples, D numbers of an example, h units, C classes, V tokens.
"""

from __future__ import annotations

from collections.abc import Iterator
from math import prod

import torch
from torch import Tensor, nn

from coterie.core.tree import Tree

NEGLIGIBLE = 1e-3
"""A unit whose bias moved by less than this share of the largest move says nothing of the examples but rounding."""


def first_dense_layer(model: nn.Module, shape: tuple[int, ...]) -> str | None:
    """Return the name of the dense layer that takes the examples themselves; None where the first layer is another."""
    name, layer = next(_layers(model), ("", None))
    right = isinstance(layer, nn.Linear) and layer.bias is not None and layer.in_features == prod(shape)
    return name if right else None


def first_embedding(model: nn.Module) -> str | None:
    """Return the name of the embedding that takes the tokens; None where the first layer is another."""
    name, layer = next(_layers(model), ("", None))
    return name if isinstance(layer, nn.Embedding) else None


def classifier_bias(model: nn.Module, outputs: int) -> str | None:
    """Return the name of the last dense layer's bias, which gives a number for each class; None where it has none."""
    name, layer = [("", None), *_layers(model)][-1]
    right = isinstance(layer, nn.Linear) and layer.bias is not None and layer.out_features == outputs
    return _join(name, "bias") if right else None


def dense_inputs(update: Tree, layer: str, number: int) -> Tensor:
    """Return what a dense layer's update says of its inputs: [1, D] for one example, else a candidate a unit [h', D].

    For one example, x minimises |dW - db x^T|^2: exact without noise, and the best guess under Gaussian noise on dW.

    Args:
        update: the update's parameters, a flat dict.
        layer: the layer's name.
        number: B, how many examples the update is of.
    """
    weight, bias = update[_join(layer, "weight")], update[_join(layer, "bias")]  # [h, D], [h]
    if number == 1:
        best: Tensor = (bias @ weight / (bias @ bias).clamp(min=1e-30))[None]
        return best
    moved = bias.abs() > NEGLIGIBLE * bias.abs().max()
    candidates: Tensor = weight[moved] / bias[moved, None]
    return candidates


def recover_labels(bias: Tensor, number: int) -> Tensor:
    """Return the labels of B examples from the update of the classifier's bias [C], int64 [B], in no order.

    Every class of which there are examples pulls its entry down. The most negative entry names a label; then one
    example's pull is taken off it, which is estimated from the sum of all negative entries.
    """
    left, classes = bias.clone(), len(bias)
    pull = bias.clamp(max=0).sum() / number * (1 + 1 / classes)
    labels = []
    for _ in range(number):
        label = int(left.argmin())
        labels.append(label)
        left[label] -= pull
    return torch.tensor(labels, device=bias.device)


def recover_tokens(update: Tree, layer: str, number: int) -> Tensor:
    """Return the V' = `number` tokens whose embedding moved most, int64 [V'], largest move first."""
    tokens: Tensor = update[_join(layer, "weight")].norm(dim=1).topk(number).indices
    return tokens


def _layers(model: nn.Module) -> Iterator[tuple[str, nn.Module]]:
    """Yield (name, layer) of every module that holds parameters itself, in the module's order."""
    return ((name, m) for name, m in model.named_modules() if any(True for _ in m.parameters(recurse=False)))


def _join(layer: str, leaf: str) -> str:
    return f"{layer}.{leaf}" if layer else leaf
