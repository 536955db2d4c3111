"""Time forward and backward of models in float32 and in bf16, on one thread of this machine's CPU.

    python benchmarks/speed/half_precision.py

Both take the same batch in turns. The numbers are the medians of the seconds that the processor worked, which other
programs change little, and how far bf16's gradient is from float32's, in proportion to its norm.
"""

from __future__ import annotations

import statistics
import time

import torch
from torch import Tensor, nn

from coterie.core import rng
from coterie.core.task import Task
from coterie.core.tree import Tree
from coterie.engines.mixed_precision import autocast_task
from coterie.models.functional import initial_weights, make_task
from coterie.models.registry import build
from coterie.objectives import cross_entropy

TURNS, STEPS = 6, 3
CASES = (("resnet20", "batch", 25), ("resnet20", "batch", 64), ("resnet20", "group", 25), ("resnet20", "group", 64))


def gradient(task: Task, weights: Tree, x: Tensor, y: Tensor) -> Tensor:
    """Return the gradient of the loss on one batch, as one vector."""
    params = {name: p.detach().requires_grad_() for name, p in weights["params"].items()}
    buffers = {name: b.clone() for name, b in weights["buffers"].items()}
    outputs, _ = task.apply(params, buffers, x, None, rng.key("half precision"))
    found = torch.autograd.grad(nn.functional.cross_entropy(outputs, y), list(params.values()))
    return torch.cat([g.flatten() for g in found])


def main() -> None:
    torch.set_num_threads(1)
    print("| model | batch | float32 | bf16 | times as fast | gradients differ by |")
    print("|---|---|---|---|---|---|")
    for name, norm, size in CASES:
        model = build(name, [3, 32, 32], 10, 0, norm=norm)
        full = make_task(model, loss=cross_entropy)
        tasks = {"float32": full, "bf16": autocast_task(full, torch.device("cpu"))}
        generator = torch.Generator().manual_seed(0)
        x = torch.randn(size, 3, 32, 32, generator=generator).to(memory_format=torch.channels_last)
        y = torch.randint(0, 10, (size,), generator=generator)
        weights, seconds = initial_weights(model), {kind: [] for kind in tasks}
        g, h = (gradient(task, weights, x, y) for task in tasks.values())
        for _ in range(TURNS):
            for kind, task in tasks.items():
                began = time.process_time()
                for _ in range(STEPS):
                    gradient(task, weights, x, y)
                seconds[kind].append((time.process_time() - began) / STEPS)
        a, b = (statistics.median(each) for each in seconds.values())
        layers = {"batch": "BatchNorm", "group": "GroupNorm"}[norm]
        apart = float((h - g).norm() / g.norm())
        print(f"| {name}, {layers} | {size} | {a:.3f} | {b:.3f} | {a / b:.2f} | {apart:.2f} |")


if __name__ == "__main__":
    main()
