"""Whether a model's gradients can be batched over clients."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn
from torch.func import functional_call, grad, vmap


def check_batched_gradients(
    model: nn.Module, x: Tensor, atol: float
) -> tuple[dict[str, Tensor], Callable[[dict[str, Tensor], Tensor], Any]]:
    """Compare the gradients of clients' batches x [clients, B, ...] taken at once with those taken one by one.

    Returns:
        The parameters, and the loss of parameters and a batch.
    """
    params = {key: p.detach() for key, p in model.named_parameters()}

    def loss(p: dict[str, Tensor], batch: Tensor) -> Any:
        return functional_call(model, p, (batch,)).square().mean()

    together = vmap(grad(loss), in_dims=(None, 0))(params, x)
    for k in range(len(x)):
        for key, value in grad(loss)(params, x[k]).items():
            torch.testing.assert_close(together[key][k], value, rtol=1e-3, atol=atol)
    return params, loss
