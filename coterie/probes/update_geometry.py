"""Lengths, angles and distances of the updates of one round: measures that need no data.

D_i = w - theta_i is what client i sends, p_i its weighting in the mean, D = sum_i p_i D_i. Only parameters count;
buffers such as BatchNorm's statistics do not. Sums are taken in float64.

Legend: n clients of the round.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

from torch import Tensor

from coterie.core import tree
from coterie.core.tree import Tree


def linear_combination(trees: Sequence[Tree], factors: Sequence[float]) -> Tree:
    """Return sum_k factors_k trees_k, in float64."""
    total = tree.scale(_to_float64(trees[0]), factors[0])
    for term, factor in zip(trees[1:], factors[1:], strict=True):
        total = tree.add(total, _to_float64(term), factor)
    return total


def drift(differences: Sequence[Tree], shares: Sequence[float]) -> dict[str, float | None]:
    """Measure how far clients go, and how far apart they end.

        dispersion  sum_i p_i |D_i - D|^2             = sum_i p_i |theta_i - theta|^2 with theta = sum_i p_i theta_i
        distance    sum_i p_i |D_i|
        cosine      sum_i p_i <D_i, D> / (|D_i| |D|)  None where D, or a client's difference, is 0

    Args:
        differences: D_i [n], each a tree of parameters.
        shares: p_i [n], which sum to 1.

    Example: two clients of equal weighting go 3 east and 4 north. D = (1.5, 2) has length 2.5 and lies 2.5 from each;
    the cosines are 1.5 / 2.5 and 2 / 2.5.

    >>> import torch
    >>> drift([{"w": torch.tensor([3.0, 0.0])}, {"w": torch.tensor([0.0, 4.0])}], [0.5, 0.5])
    {'dispersion': 6.25, 'distance': 3.5, 'cosine': 0.7}

    After Chen, Tu, Li, Shen, Chao: On the Importance and Applicability of Pre-Training for Federated Learning, ICLR
    2023, who ask whether pre-training lessens drift. Their formulas were not at hand; these are ours.
    """
    centre = linear_combination(differences, shares)
    length = float(tree.norm(centre))
    dispersion, distance, cosine = 0.0, 0.0, 0.0
    for difference, share in zip(differences, shares, strict=True):
        own = _to_float64(difference)
        norm = float(tree.norm(own))
        dispersion += share * float(_squared_norm(tree.sub(own, centre)))
        distance += share * norm
        cosine += share * float(tree.dot(own, centre)) / (norm * length) if norm * length else math.nan
    return {"dispersion": dispersion, "distance": distance, "cosine": None if math.isnan(cosine) else cosine}


def diversity(differences: Sequence[Tree]) -> float | None:
    """Return the gradient diversity, sum_i |D_i|^2 / |sum_i D_i|^2.

    It is 1/n where all updates are the same, 1 where they are orthogonal, more where they cancel, and None where they
    cancel to 0. The clients' weighting does not enter; where all are equal, n diversity = 1 + dispersion / |D|^2.

    >>> import torch
    >>> diversity([{"w": torch.tensor([3.0, 0.0])}, {"w": torch.tensor([0.0, 4.0])}])
    1.0

    Nguyen, Wang, Malik, Sanjabi, Rabbat: Where to Begin? On the Impact of Pre-Training and Initialization in Federated
    Learning, ICLR 2023; the term is of Yin et al.: Gradient Diversity, AISTATS 2018.
    """
    total = float(_squared_norm(linear_combination(differences, [1.0] * len(differences))))
    return sum(float(_squared_norm(_to_float64(d))) for d in differences) / total if total else None


def cosine(a: Tree, b: Tree) -> float | None:
    """Return <a, b> / (|a| |b|); None where one of them is 0.

    >>> import torch
    >>> cosine({"w": torch.tensor([1.0, 0.0])}, {"w": torch.tensor([3.0, 4.0])})
    0.6
    """
    lengths = length(a) * length(b)
    return inner(a, b) / lengths if lengths else None


def inner(a: Tree, b: Tree) -> float:
    """Return the inner product over all leaves, in float64."""
    return float(tree.dot(_to_float64(a), _to_float64(b)))


def length(a: Tree) -> float:
    """Return the Euclidean norm over all leaves, in float64."""
    return float(tree.norm(_to_float64(a)))


def _squared_norm(a: Tree) -> Tensor:
    return tree.dot(a, a)


def _to_float64(a: Tree) -> Tree:
    return tree.map(lambda x: x.double(), a)
