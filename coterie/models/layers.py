"""BatchNorm and dropout for federations: they respect masks and draw randomness from a key.

Two kinds of layers of `torch.nn` do not suit a federation. BatchNorm counts every row of a batch, so that a short batch
padded to a common length would be normalised wrongly. Dropout draws from a global generator, so that its masks depend
on which client ran before. Both are swapped, by type, for the layers here. Names and shapes of parameters and buffers
stay the same. GroupNorm stays too, but its input may get another layout (see `memory_layout`).

Legend: B batch, C channels.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from math import prod

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.nn.modules.batchnorm import _BatchNorm
from torch.nn.modules.dropout import _DropoutNd

from coterie.core import rng
from coterie.core.normaliser import LayerInput, Moments, Normaliser, batch_moments, normalise, per_channel
from coterie.models.memory_layout import under_vmap, use_plain_layout_for_constants

Extra = Mapping[nn.Module, Mapping[str, Tensor]]
"""BatchNorm layers' further parameters, by name; see `LayerInput.extra`."""


@dataclass
class Scope:
    """What the swapped layers of one model share for the length of one forward."""

    mask: Tensor | None = None  # [B] bool
    key: Tensor | None = None  # [] int64
    calls: int = 0  # how often dropout layers have run in this forward
    normaliser: Normaliser | None = None  # of BatchNorm layers; None: they normalise by the batch
    extra: Extra = field(default_factory=dict)
    seen: dict[nn.Module, Moments] = field(default_factory=dict)  # what each of them reported in this forward

    def enter(
        self, mask: Tensor | None, key: Tensor, normaliser: Normaliser | None = None, extra: Extra | None = None
    ) -> None:
        """Set what the layers use in one forward: mask, key, normaliser, and further parameters by layer."""
        self.mask, self.key, self.calls, self.seen = mask, key, 0, {}
        self.normaliser, self.extra = normaliser, extra or {}

    def leave(self) -> None:
        """Forget what `enter` set and what layers recorded, so that no tensors stay in memory."""
        self.mask = self.key = self.normaliser = None
        self.extra, self.seen = {}, {}

    def observe(self, layer: nn.Module, moments: Moments) -> None:
        """Record the moments that a layer reports, merged with those of its earlier calls in the same forward."""
        before = self.seen.get(layer)
        self.seen[layer] = moments if before is None else before.merge(moments)

    def next_key(self) -> Tensor:
        """Return a key for the next random layer of this forward."""
        assert self.key is not None, "a random layer runs outside of a forward in training mode"
        self.calls += 1
        return rng.fold(self.key, self.calls)


class MaskedBatchNorm(nn.Module):
    """Batch normalisation (Ioffe and Szegedy 2015) that counts real examples only.

    In training, x [B, C, ...] is normalised by the mean and the biased variance of the real rows, and the running
    statistics move towards that mean and the unbiased variance, as `torch.nn.BatchNorm1d`, 2d and 3d do. Where the
    scope has a normaliser, that one normalises instead, and the running statistics stay (see
    `coterie.core.normaliser`).

    A batch with one value per channel has no variance. It is normalised with the variance 0, and leaves the running
    variance unchanged, where PyTorch raises an error. A client with one example is common in a federation, and an error
    would stop everyone.
    """

    weight: Tensor | None
    bias: Tensor | None
    running_mean: Tensor
    running_var: Tensor
    num_batches_tracked: Tensor

    def __init__(self, source: _BatchNorm, scope: Scope):
        super().__init__()
        self.eps, self.momentum, self.scope = source.eps, source.momentum, scope
        self.register_parameter("weight", source.weight if source.affine else None)
        self.register_parameter("bias", source.bias if source.affine else None)
        self.tracks = source.running_mean is not None
        self.moves = self.tracks and source.track_running_stats
        for name in ("running_mean", "running_var", "num_batches_tracked"):
            self.register_buffer(name, getattr(source, name) if self.tracks else None)

    def forward(self, x: Tensor) -> Tensor:
        """Return x [B, C, ...] normalised, scaled and shifted; its statistics are in float32 also for x in bf16."""
        mask, normaliser = self.scope.mask, self.scope.normaliser
        by_batch = self.training or not self.tracks
        if by_batch and mask is None and normaliser is None and self._torch_agrees(x):
            return self._normalise_by_torch(x)
        if x.dtype is torch.bfloat16 and torch.is_autocast_enabled(x.device.type):
            x = x.float()  # sums over a batch, and a count of its rows, need more than 8 bits
        if not by_batch:
            return self._scale_and_shift(normalise(x, self.running_mean, self.running_var, self.eps))
        batch = batch_moments(x, mask)
        if normaliser is not None and self.tracks:
            extra = self.scope.extra.get(self, {})
            y, seen = normaliser(LayerInput(x, batch, self.running_mean, self.running_var, self.eps, mask, extra))
            self.scope.observe(self, Moments(seen.mean.detach(), seen.var.detach(), seen.number))
            return self._scale_and_shift(y)
        if self.training and self.moves:
            self._move_statistics(batch.mean.detach(), batch.var.detach(), batch.number)
        return self._scale_and_shift(normalise(x, batch.mean, batch.var, self.eps))

    def _torch_agrees(self, x: Tensor) -> bool:
        """Return whether PyTorch's kernel, several times as fast, does the same as ours on x without padding.

        It sums bf16 in float32, as ours does, but has no rule for batching it.
        """
        several = x.shape[0] * prod(x.shape[2:]) > 1
        batched_bf16 = x.dtype is torch.bfloat16 and under_vmap()
        return several and not (self.moves and self.momentum is None) and not batched_bf16

    def _normalise_by_torch(self, x: Tensor) -> Tensor:
        """Return what PyTorch's own BatchNorm gives for x; in training it moves the running statistics."""
        moves = self.training and self.moves
        if moves:
            self.num_batches_tracked.add_(1)
        mean, var = (self.running_mean, self.running_var) if moves else (None, None)
        return F.batch_norm(x, mean, var, self.weight, self.bias, True, self.momentum or 0.0, self.eps)

    def _move_statistics(self, mean: Tensor, var: Tensor, count: Tensor) -> None:
        """Move the running statistics towards the batch's, in place; padding alone moves nothing."""
        real = (count > 0).to(mean.dtype)  # a batch of padding alone changes nothing
        self.num_batches_tracked.add_(real.to(torch.int64))
        share = real / self.num_batches_tracked.clamp(min=1) if self.momentum is None else real * self.momentum
        unbiased = torch.where(count > 1, var * (count / (count - 1).clamp(min=1)), self.running_var)
        self.running_mean.copy_(torch.lerp(self.running_mean, mean, share.to(mean.dtype)))
        self.running_var.copy_(torch.lerp(self.running_var, unbiased, share.to(mean.dtype)))

    def _scale_and_shift(self, y: Tensor) -> Tensor:
        if self.weight is not None:
            y = y * per_channel(self.weight, y)
        return y if self.bias is None else y + per_channel(self.bias, y)


class KeyedDropout(nn.Module):
    """Dropout whose mask is a function of the step's key and the layer's place, not of a global generator.

    Entries are zeroed with probability p and the others scaled by 1 / (1 - p), as `torch.nn.Dropout` does. With
    `by_channel`, whole channels are zeroed, as `Dropout1d`, 2d and 3d do.
    """

    def __init__(self, p: float, by_channel: bool, scope: Scope):
        super().__init__()
        self.p, self.by_channel, self.scope = p, by_channel, scope

    def forward(self, x: Tensor) -> Tensor:
        """Return x [B, ...]; in training, with random entries zeroed and the others scaled up."""
        if not self.training or self.p == 0:
            return x
        shape = (*x.shape[:2], *[1] * (x.dim() - 2)) if self.by_channel else x.shape
        kept = rng.uniform(self.scope.next_key(), shape) >= self.p
        return x * kept.to(x.dtype) / (1 - self.p) if self.p < 1 else torch.zeros_like(x)


def swap_layers(model: nn.Module, scope: Scope) -> nn.Module:
    """Replace every BatchNorm and dropout of the model, at any depth, and return the model.

    A module that appears in two places is replaced by one module in both, so that shared weights stay shared. Other
    modules are kept, also those whose class derives from one of torch's and has a forward of its own.
    """
    done: dict[nn.Module, nn.Module] = {}

    def replace(module: nn.Module) -> nn.Module:
        """Return the module or its replacement, whose children are replaced too."""
        if module not in done:
            done[module] = _replacement(module, scope)
            for name, child in done[module]._modules.items():  # named_children leaves out a child's second name
                if child is not None:
                    done[module]._modules[name] = replace(child)
        return done[module]

    return replace(model)


def _replacement(module: nn.Module, scope: Scope) -> nn.Module:
    """Return our layer in place of a BatchNorm or dropout of PyTorch; any other module itself."""
    if isinstance(module, nn.GroupNorm):
        use_plain_layout_for_constants(module)
    if not has_torch_forward(module):
        return module
    if isinstance(module, _BatchNorm):
        return MaskedBatchNorm(module, scope)
    if isinstance(module, _DropoutNd) and not isinstance(module, (nn.AlphaDropout, nn.FeatureAlphaDropout)):
        return KeyedDropout(module.p, by_channel=not isinstance(module, nn.Dropout), scope=scope)
    return module


def has_torch_forward(module: nn.Module) -> bool:
    """Return whether the module's forward is one of `torch.nn`'s."""
    return type(module).forward.__module__.startswith("torch.nn.modules.")
