"""Labels that are bytes are the classes that they name, on every engine."""

from __future__ import annotations

import torch
from torch import nn

import coterie
from coterie import Examples
from coterie.engines.vectorised import Vectorised
from coterie.objectives.classification import accuracy, cross_entropy


def test_the_class_156_of_bytes_counts() -> None:
    """In eight bits -100, which marks what does not count, is 156."""
    outputs, y = torch.randn(3, 200, generator=torch.Generator().manual_seed(0)), torch.tensor([156, 3, 7])
    for score in (cross_entropy, accuracy):
        for ours, expected in zip(score(outputs, y.to(torch.uint8)), score(outputs, y), strict=True):
            assert torch.equal(ours, expected)
    assert accuracy(outputs, y.to(torch.uint8))[1].tolist() == [1, 1, 1]


def test_clients_whose_labels_are_bytes_are_batched() -> None:
    x, y = torch.randn(8, 4), (torch.arange(8) % 3).to(torch.uint8)
    engine = Vectorised()
    clients = {"a": Examples(x[:4], y[:4]), "b": Examples(x[4:], y[4:])}
    list(coterie.federate(coterie.fedavg(lr=0.1, batch_size=2), nn.Linear(4, 3), clients, rounds=1, engine=engine))
    assert engine.unbatched == {}
