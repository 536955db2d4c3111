"""Updates that add a product to a weight where it lies: where they apply, and that they change nothing."""

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor, nn

import coterie
from coterie.core import tree
from coterie.core.algorithm import Algorithm
from coterie.core.task import Batch
from coterie.engines import compiled
from coterie.engines.compiled import Compiled, _trace
from coterie.engines.fused import fuse_updates
from coterie.models.functional import make_task
from coterie.objectives import cross_entropy

CPU = torch.device("cpu")
X, Y = torch.randn(4, 6, dtype=torch.float64), torch.tensor([0, 1, 2, 0])
BATCHES = {"private": Batch(X, Y, torch.arange(4), None, torch.tensor(1))}
CONTEXT = coterie.Context(*(torch.tensor(v, dtype=torch.float64) for v in (1, 4, 1, 0.1)), torch.tensor(0), None)


class Twice(nn.Module):
    """One weight, used in two places: its gradient is the sum of two products."""

    def __init__(self) -> None:
        super().__init__()
        self.inner, self.out = nn.Linear(6, 6), nn.Linear(6, 3)

    def forward(self, x: Tensor) -> Any:
        return self.out(torch.tanh(self.inner(torch.tanh(self.inner(x)))))


def dense() -> nn.Module:
    return nn.Sequential(nn.Linear(6, 5), nn.Tanh(), nn.Linear(5, 3))


def bound(model: Callable[[], nn.Module], **options: Any) -> tuple[Algorithm, dict[str, Any]]:
    """An algorithm on a model, and a carry to step from."""
    torch.manual_seed(0)
    made = model().double()
    algorithm = coterie.fedavg(lr=0.1, batch_size=4, **options)(make_task(made, loss=cross_entropy, num_classes=3))
    weights = {"params": dict(made.named_parameters()), "buffers": {}}
    return algorithm, tree.clone(tree.map(torch.Tensor.detach, algorithm.client.start(weights, {}, CONTEXT)))


@pytest.mark.parametrize(
    ("model", "options", "fused"),
    [(dense, {}, 2), (Twice, {}, 1), (dense, {"momentum": 0.9}, 0), (dense, {"weight_decay": 0.1}, 0)],
)
def test_where_it_applies(model: Callable[[], nn.Module], options: dict[str, Any], fused: int) -> None:
    """To the weight of every linear layer that is used once, in plain descent."""
    algorithm, carry = bound(model, **options)
    with torch.no_grad():
        trace, _ = _trace(algorithm.client.step, carry, BATCHES, CONTEXT, compiled._batch_tensors(BATCHES))
        fuse_updates(trace, [n for n in trace.graph.nodes if n.op == "placeholder"][: len(tree.leaves(carry))])
    calls = [node for node in trace.graph.nodes if node.target is torch.ops.coterie.add_product.default]
    assert len(calls) == fused


@pytest.mark.parametrize("model", [dense, Twice])
@pytest.mark.skipif(compiled.cpp_compiler() is None, reason="needs a C++ compiler")
def test_it_changes_nothing(model: Callable[[], nn.Module]) -> None:
    algorithm, carry = bound(model)
    plain, fast = tree.clone(carry), tree.clone(carry)
    program = Compiled(algorithm.client.step, CPU)
    with torch.no_grad():
        for _ in range(3):
            plain, logs = algorithm.client.step(plain, BATCHES, CONTEXT)
            fast, same = program(fast, BATCHES, CONTEXT)
            assert same["loss"] == pytest.approx(float(logs["loss"]), abs=1e-12)
    gap = tree.map(lambda a, b: (a - b).abs().max(), plain["params"], fast["params"])
    assert max(map(float, tree.leaves(gap))) < 1e-12
