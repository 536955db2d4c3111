"""Averaging two models that started apart, and two that started together: Figure 1 of McMahan et al. 2017.

    COTERIE_DATA=... python benchmarks/fedavg/figure1.py

Two 2NNs are trained on 600 MNIST examples each, without overlap: 240 steps of SGD, lr 0.1, batches of 50 (20 passes).
Then the loss of theta w + (1 - theta) w' on all 60,000 training examples, for 50 values of theta from -0.2 to 1.2.
Writes figure1.json and docs/algorithms/figures/fedavg-figure1.svg.
"""

from __future__ import annotations

import json
from pathlib import Path

import matplotlib.pyplot as plt
import torch
from torch import nn

import coterie
from coterie.core import tree
from coterie.data import deal, load
from coterie.loop.evaluate import mean, scores
from coterie.models.registry import build

HERE = Path(__file__).parent
FIGURE = HERE.parents[1] / "docs" / "algorithms" / "figures" / "fedavg-figure1.svg"
THETAS = torch.linspace(-0.2, 1.2, 50).tolist()


def losses(models: list[nn.Module]) -> list[float]:
    """The training loss along the line through the two trained models."""
    source = load("mnist")
    clients = dict(list(deal(source, partition="iid", num_clients=100, rng_seed=0).items())[:2])
    recipe = coterie.independent(lr=0.1, local_steps=240, batch_size=50)
    (round,) = coterie.federate(recipe, models, clients, rounds=1, num_classes=10)
    w, other = ({"params": round.weights(client), "buffers": {}} for client in clients)
    task = next(iter(round.plan.tasks.values()))
    between = (tree.add(tree.scale(w, theta), other, 1 - theta) for theta in THETAS)
    return [mean(scores(task, weights, source.train, round.plan.engine))["loss"] for weights in between]


def main() -> None:
    """Both curves, their ends, and the plot."""
    start, another = (build("2nn", (1, 28, 28), 10, rng_seed) for rng_seed in (0, 1))
    curves = {"different starts": losses([start, another]), "one start": losses([start, start])}
    figure, axes = plt.subplots(1, 2, figsize=(8, 3), layout="constrained", sharex=True)
    for axis, (name, curve) in zip(axes, curves.items(), strict=True):
        axis.plot(THETAS, curve)
        best = min(curve[k] for k in (closest(0.0), closest(1.0)))
        axis.axhline(best, color="grey", linewidth=0.8)
        axis.set(title=name, xlabel="theta", ylabel="training loss", ylim=(0, min(max(curve), 6)))
        print(f"{name}: better parent {best:.3f}, average of both {curve[closest(0.5)]:.3f}, lowest {min(curve):.3f}")
    FIGURE.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(FIGURE, metadata={"Date": None})
    (HERE / "figure1.json").write_text(json.dumps({"theta": THETAS} | curves) + "\n")


def closest(theta: float) -> int:
    """The position of the value nearest to theta."""
    return min(range(len(THETAS)), key=lambda k: abs(THETAS[k] - theta))


if __name__ == "__main__":
    torch.set_num_threads(1)
    main()
