"""The work that all three systems do: a layer of `hidden` units on pictures that are noise, descended in full batches.

A silo's pictures follow from its number, and a full batch has no order, so that the weights of all systems agree up to
rounding. It needs PyTorch alone, so that each system's own environment can run it.
"""

from __future__ import annotations

import os
import time
from pathlib import Path

import safetensors.torch
import torch
from torch import Tensor, nn
from torch.nn import functional

SIDE, CLASSES, ROWS, STEPS, RATE = 28, 10, 64, 5, 0.1


def hidden_units(mb: float) -> int:
    """Return how many units make a model of so many MB in float32."""
    return max(1, round(mb * 250_000 / (SIDE * SIDE + 1 + CLASSES)))


class Model(nn.Sequential):
    """A hidden layer, with PyTorch's initial weights of a fixed seed."""

    def __init__(self, hidden: int) -> None:
        torch.manual_seed(0)
        super().__init__(nn.Flatten(), nn.Linear(SIDE * SIDE, hidden), nn.ReLU(), nn.Linear(hidden, CLASSES))


def make_rows(silo: int) -> tuple[Tensor, Tensor]:
    """Return a silo's pictures [64, 1, 28, 28] and classes [64]."""
    g = torch.Generator().manual_seed(silo)
    return torch.rand(ROWS, 1, SIDE, SIDE, generator=g), torch.arange(ROWS) % CLASSES


def train(model: nn.Module, silo: int) -> None:
    """Descend a silo's mean loss, in place."""
    torch.set_num_threads(1)
    x, y = make_rows(silo)
    for _ in range(STEPS):
        model.zero_grad()
        functional.cross_entropy(model(x), y).backward()
        with torch.no_grad():
            for p in model.parameters():
                p -= RATE * p.grad


def average_here(hidden: int, silos: int, rounds: int) -> dict[str, Tensor]:
    """Return the weights after some rounds of FedAvg in one loop."""
    model = Model(hidden)
    for _ in range(rounds):
        before, states = {name: x.clone() for name, x in model.state_dict().items()}, []
        for silo in range(silos):
            model.load_state_dict(before)
            train(model, silo)
            states.append({name: x.clone() for name, x in model.state_dict().items()})
        model.load_state_dict({name: sum(s[name] for s in states) / silos for name in before})
    return model.state_dict()


def the_model() -> Model:
    """Return the model of the case that this process belongs to."""
    return Model(int(os.environ["BENCH_HIDDEN"]))


def save_end(state: dict[str, Tensor]) -> None:
    """Keep the last weights of the case that this process belongs to."""
    safetensors.torch.save_file(dict(state), Path(os.environ["BENCH_FOLDER"]) / "end.safetensors")


def note_round() -> None:
    """Write down that a round has ended now."""
    with (Path(os.environ["BENCH_FOLDER"]) / "ends.txt").open("a") as file:
        file.write(f"{time.time()}\n")
