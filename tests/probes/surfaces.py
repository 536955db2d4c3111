"""Surfaces for tests: losses in closed form, and the loss of a small network."""

import torch
from torch import Tensor, nn

from coterie import Examples
from coterie.core.task import Score
from coterie.core.tree import Tree
from coterie.engines.sequential import Sequential
from coterie.models.functional import initial_weights, make_task
from coterie.objectives import accuracy, cross_entropy
from coterie.probes import Surface

ENGINE = Sequential(dtype=torch.float64)


class Point(nn.Module):
    """A model whose output is a point, for every input."""

    def __init__(self, *w: float) -> None:
        super().__init__()
        self.w = nn.Parameter(torch.tensor(w, dtype=torch.float64))

    def forward(self, x: Tensor) -> Tensor:
        return self.w.expand(len(x), -1)


def point(*w: float) -> Tree:
    """Return the weights of a `Point`."""
    return {"params": {"w": torch.tensor(w, dtype=torch.float64)}, "buffers": {}}


def point_surface(loss: Score, examples: int = 3, d: int = 2) -> Surface:
    """Return a surface whose loss depends on the point alone."""
    x = torch.zeros(examples, 1)
    return Surface(make_task(Point(*[0.0] * d), loss=loss), ENGINE, Examples(x, x), batch=2)


def network_surface(model: nn.Module, examples: Examples, batch: int = 7) -> Surface:
    """Return the surface of a model's cross-entropy."""
    task = make_task(model, loss=cross_entropy, metrics={"accuracy": accuracy}, num_classes=3)
    return Surface(task, ENGINE, examples, batch=batch)


def perturb(model: nn.Module, seed: int, by: float = 0.5) -> Tree:
    """Return the model's weights with random numbers added to its parameters."""
    g = torch.Generator().manual_seed(seed)
    weights = initial_weights(model)
    moved = {n: p + by * torch.randn(p.shape, generator=g, dtype=p.dtype) for n, p in weights["params"].items()}
    return {**weights, "params": moved}
