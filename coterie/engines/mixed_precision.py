"""Training in bf16: the forward by PyTorch's autocast, weights, statistics, losses and optimisers in float32.

Autocast chooses by operation: products of matrices and convolutions take bf16, whose 8 bits are fewer than float32's 24
but of the same range, so no gradient has to be scaled. BatchNorm layers sum in float32 (see `coterie.models.layers`),
and the outputs are float32 again before the loss sees them. Evaluation stays in float32.
"""

from __future__ import annotations

from dataclasses import replace
from typing import Literal, TypeAlias

import torch
from torch import Tensor

from coterie.core.errors import Mistake
from coterie.core.normaliser import Normaliser
from coterie.core.task import Apply, Encoder, Task
from coterie.core.tree import Tree

Precision: TypeAlias = Literal["full", "bf16"]


def check_precision(precision: Precision, dtype: torch.dtype, device: torch.device) -> None:
    """Refuse a precision that is not there.

    Raises:
        Mistake: it is neither "full" nor "bf16"; or bf16 is asked for with another type of number than float32, or on a
            device that does not compute in it.
    """
    if precision == "full":
        return
    allowed = '"full" or "bf16"'
    if precision == "bf16" and dtype != torch.float32:
        allowed = f'"full" with dtype = "{str(dtype).removeprefix("torch.")}"'
    elif precision == "bf16" and not _computes_in_bf16(device):
        allowed = f'"full" on {device}, which does not compute in bf16'
    elif precision == "bf16":
        return
    raise Mistake(key="precision", value=precision, allowed=allowed)


def _computes_in_bf16(device: torch.device) -> bool:
    """Return whether a device computes in bf16. Every CPU does, though those without instructions for it slowly."""
    if device.type == "cuda":
        with torch.cuda.device(device):
            return bool(torch.cuda.is_bf16_supported(including_emulation=False))
    return device.type == "cpu"


def autocast_task(task: Task, device: torch.device) -> Task:
    """Return a task whose training forwards take bf16 where autocast does; its gradients are float32."""
    make, encoder = task.apply_with, task.encoder

    def apply_with(normaliser: Normaliser) -> Apply:
        assert make is not None
        return _autocast(make(normaliser), device)

    def encode() -> Apply:
        assert encoder is not None
        return _autocast(encoder.forward(), device)

    return replace(
        task,
        apply=_autocast(task.apply, device),
        apply_with=None if make is None else apply_with,
        encoder=None if encoder is None else Encoder(encode, encoder.width, encoder.head),
    )


def _autocast(forward: Apply, device: torch.device) -> Apply:
    """Return the forward under autocast, with float32 outputs."""

    def apply(params: Tree, buffers: Tree, x: Tensor, mask: Tensor | None, key: Tensor) -> tuple[Tensor, Tree]:
        # without its cache of weights, which would outlive a batched call
        with torch.autocast(device.type, torch.bfloat16, cache_enabled=False):
            outputs, after = forward(params, buffers, x, mask, key)
        return outputs.float() if outputs.dtype is torch.bfloat16 else outputs, after

    return apply
