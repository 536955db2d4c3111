"""Which part of a model tells its classes apart: what is new where the rest comes from elsewhere."""

from __future__ import annotations

from torch import nn


def classifier(model: nn.Module) -> str | None:
    """The name of the model's last linear layer, in the order of its modules; None where there is none inside it.

    >>> classifier(nn.Sequential(nn.Flatten(), nn.Linear(4, 3), nn.ReLU(), nn.Linear(3, 2)))
    '3'
    """
    found = [name for name, module in model.named_modules() if isinstance(module, nn.Linear) and name]
    return found[-1] if found else None
