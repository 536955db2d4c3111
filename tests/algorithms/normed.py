"""Models with BatchNorm in many places, and clients as unlike as can be."""

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

import coterie
from coterie import Examples, Recipe, Round
from coterie.algorithms.batchnorm.gradients import pooled_gradient
from coterie.algorithms.batchnorm.tasks import with_normaliser
from coterie.core import tree
from coterie.core.engine import Engine
from coterie.core.normaliser import Normaliser
from coterie.core.task import Task
from coterie.engines.sequential import Sequential
from coterie.engines.vectorised import Vectorised
from coterie.models.functional import initial_weights, make_task
from coterie.objectives import cross_entropy

FULL = {"lr": 0.05, "batch_size": "full", "local_steps": 1}
PAPER = {**FULL, "variant": "paper"}


def dense() -> nn.Module:
    torch.manual_seed(1)
    return nn.Sequential(
        nn.Linear(6, 8), nn.BatchNorm1d(8), nn.ReLU(), nn.Linear(8, 6), nn.ReLU(), nn.BatchNorm1d(6), nn.Linear(6, 3)
    ).double()


class Shortcut(nn.Module):
    """A residual block whose BatchNorm layers have nothing telling in their names, one of them in a shortcut."""

    def __init__(self) -> None:
        super().__init__()
        self.main = nn.Sequential(nn.Conv2d(4, 6, 3, padding=1), nn.BatchNorm2d(6))
        self.downsample = nn.Sequential(nn.Conv2d(4, 6, 1), nn.BatchNorm2d(6, affine=False))

    def forward(self, x: Tensor) -> Tensor:
        return F.relu(self.main(x) + self.downsample(x))


def images() -> nn.Module:
    torch.manual_seed(2)
    body = nn.Sequential(nn.Conv2d(1, 4, 3), nn.BatchNorm2d(4, momentum=None), nn.ReLU(), Shortcut())
    return nn.Sequential(body, nn.Flatten(), nn.Linear(6 * 36, 3)).double()


def volumes() -> nn.Module:
    torch.manual_seed(3)
    return nn.Sequential(
        nn.Conv3d(1, 4, 2), nn.BatchNorm3d(4, eps=1e-3), nn.Tanh(), nn.Flatten(), nn.Linear(4 * 27, 3)
    ).double()


MODELS = {"dense": (dense, (6,)), "images": (images, (1, 8, 8)), "volumes": (volumes, (1, 4, 4, 4))}
ENGINES = {"sequential": Sequential, "vectorised": Vectorised}
every_model = pytest.mark.parametrize("model", MODELS)
every_engine = pytest.mark.parametrize("engine", ENGINES)


def run(
    recipe: Recipe, model: nn.Module, clients: dict[str, Examples], rounds: int = 10, engine: str = "sequential", **more
) -> Round:
    made: Engine = ENGINES[engine](dtype=torch.float64)
    return list(coterie.federate(recipe, model, clients, rounds=rounds, engine=made, **more))[-1]


def together(clients: dict[str, Examples]) -> dict[str, Examples]:
    """One client that holds what all of these do."""
    parts = [examples.tensors() for examples in clients.values()]
    return {"all": Examples(torch.cat([x for x, _ in parts]), torch.cat([y for _, y in parts if y is not None]))}


def one_label_each(shape: tuple[int, ...], n: int = 4, each: int = 6) -> dict[str, Examples]:
    """As unlike as can be: client i has class i mod 3 alone, and inputs around 5 i of a scale of their own."""
    g = torch.Generator().manual_seed(8)
    return {
        str(i): Examples(
            5 * i + (i + 1) * torch.randn(each, *shape, generator=g, dtype=torch.float64), torch.full((each,), i % 3)
        )
        for i in range(n)
    }


def batch(shape: tuple[int, ...], b: int = 5) -> Tensor:
    return 2 + 3 * torch.randn(b, *shape, generator=torch.Generator().manual_seed(6), dtype=torch.float64)


def task_of(model: nn.Module, normaliser: Normaliser) -> tuple[Task, tree.Tree]:
    """A task whose BatchNorm layers call the normaliser, and weights with random statistics; slopes for `pooled`."""
    task = make_task(model, loss=cross_entropy)
    weights = initial_weights(model)
    g = torch.Generator().manual_seed(4)
    for name, b in weights["buffers"].items():
        if name.endswith("mean"):
            b.copy_(torch.randn(b.shape, generator=g))
        if name.endswith("var"):
            b.copy_(torch.rand(b.shape, generator=g) + 0.5)
    means = [name for name in weights["buffers"] if name.endswith("mean")] if normaliser is pooled_gradient else []
    for name in means:
        mean = weights["buffers"][name]
        slopes = torch.randn(2, len(mean), generator=g, dtype=mean.dtype)
        weights["params"][f"{name.removesuffix('running_mean')}slopes"] = slopes
    return with_normaliser(task, normaliser), weights
