"""Mutual learning as a plain loop over modules, which uses nothing of the algorithm: what it is held against.

Every batch is all there is, so that no order of examples matters; everything is float64.
"""

from __future__ import annotations

import copy
from collections.abc import Callable, Mapping

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from coterie import Examples


def gradient(model: nn.Module, loss: Tensor) -> Tensor:
    return torch.cat([g.reshape(-1) for g in torch.autograd.grad(loss, list(model.parameters()))])


def move(model: nn.Module, along: Tensor, lr: float) -> None:
    vector = nn.utils.parameters_to_vector(model.parameters()).detach() - lr * along
    for p, piece in zip(model.parameters(), torch.split(vector, [p.numel() for p in model.parameters()]), strict=True):
        p.data.copy_(piece.reshape(p.shape))


def projected(g: Tensor, away_from: Tensor) -> Tensor:
    conflict = g @ away_from
    return g - conflict / (away_from @ away_from) * away_from if conflict < 0 else g


def by_hand(
    models: Mapping[str, nn.Module],
    clients: Mapping[str, Examples],
    seed: Examples,
    *,
    rounds: int,
    steps: int,
    lr: float,
    weight: float = 1.0,
    temperature: float = 1.0,
    project: bool = True,
    successive: bool = False,
    due: Callable[[int], bool] = lambda k: True,
    present: Callable[[int, str], bool] = lambda round, client: True,
    weigh: Callable[[Tensor], float] = lambda table: 1.0,
) -> dict[str, nn.Module]:
    """The models after `rounds` rounds. Peers' divergences are taken one by one, and averaged by their weights."""
    models = {client: copy.deepcopy(model) for client, model in models.items()}
    said: dict[str, Tensor] = {}

    def local(model: nn.Module, client: str) -> Tensor:
        x, y = clients[client].tensors()
        return gradient(model, F.cross_entropy(model(x), y))

    def shared(model: nn.Module, client: str) -> Tensor:
        outputs = model(seed.x)
        loss = outputs.sum() * 0 if seed.y is None else F.cross_entropy(outputs, seed.y)
        log_q = F.log_softmax(outputs / temperature, -1)
        peers = [p for other, p in said.items() if other != client]
        weights = [weigh(p) for p in peers]
        for p, v in zip(peers, weights, strict=True):
            share = v / max(sum(weights), 0.1)
            loss = loss + weight * temperature**2 * share * (p * (p.log() - log_q)).sum(-1).mean()
        return gradient(model, loss)

    for number in range(1, rounds + 1):
        new = {}
        for client in (c for c in clients if present(number, c)):
            model = models[client]
            for k in range(steps):
                own = local(model, client)
                if not successive:
                    g = shared(model, client) if due(k) else torch.zeros_like(own)
                    move(model, own + (projected(g, own) if project else g), lr)
                    continue
                move(model, own, lr)
                if due(k):
                    g = shared(model, client)
                    move(model, projected(g, local(model, client)) if project else g, lr)
            new[client] = F.softmax(model(seed.x) / temperature, -1).detach()
        said = new
    return models
