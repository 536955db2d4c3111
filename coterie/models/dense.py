"""Build fully connected networks with any number of hidden layers, or none.

Legend: B batch, D numbers in an example, C classes.
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise

from torch import nn

from coterie.core.errors import require
from coterie.core.kinds import Count
from coterie.models.shape_checks import num_features


def mlp(in_shape: Sequence[int], num_classes: int, hidden: Sequence[Count] = (64,)) -> nn.Module:
    """Return a multilayer perceptron with ReLU, [B, ...] -> [B, C]; an example of any shape is read as D numbers.

    Args:
        hidden: the sizes of the hidden layers, first to last.

    Raises:
        Mistake: a size is below 1.

    >>> mlp([2, 3], 4, hidden=[5])
    Sequential(
      (0): Flatten(start_dim=1, end_dim=-1)
      (1): Linear(in_features=6, out_features=5, bias=True)
      (2): ReLU()
      (3): Linear(in_features=5, out_features=4, bias=True)
    )
    """
    right = all(isinstance(size, int) and size >= 1 for size in hidden)
    require("hidden", list(hidden), right, "a list of whole numbers, each 1 or more")
    sizes = [num_features("mlp", in_shape), *hidden]
    layers: list[nn.Module] = [nn.Flatten()]  # [B, D]
    for before, after in pairwise(sizes):
        layers += [nn.Linear(before, after), nn.ReLU()]
    return nn.Sequential(*layers, nn.Linear(sizes[-1], num_classes))  # [B, C]


def two_nn(in_shape: Sequence[int], num_classes: int) -> nn.Module:
    """Return the 2NN of McMahan et al. 2017, section 3: two hidden layers of 200; 199,210 parameters on MNIST."""
    return mlp(in_shape, num_classes, hidden=(200, 200))


def logistic(in_shape: Sequence[int], num_classes: int) -> nn.Module:
    """Return multinomial logistic regression: one linear layer, [B, ...] -> [B, C], so that the loss is convex."""
    return mlp(in_shape, num_classes, hidden=())
