"""Layers that replace PyTorch's where a federation needs more than they give: masks, and randomness by key.

Two of `torch.nn`'s layers cannot be used as they are. BatchNorm counts every row of a batch, so that a short batch
padded to a common length would be normalised wrongly; dropout draws from a global generator, so that its masks depend
on who ran before. Both are swapped, by type, for the ones here; names and shapes of parameters and buffers stay the
same. GroupNorm stays, but for the layout of what it is given (see `memory_layout`).

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
from coterie.models.memory_layout import use_plain_layout_for_constants

Extra = Mapping[nn.Module, Mapping[str, Tensor]]
"""BatchNorm layers' further parameters, by name; see `LayerInput.extra`."""


@dataclass
class Scope:
    """What the swapped layers of one model share for the length of one forward."""

    mask: Tensor | None = None  # [B] bool
    key: Tensor | None = None  # [] int64
    calls: int = 0  # of dropout layers so far in this forward
    normaliser: Normaliser | None = None  # of BatchNorm layers; None: they normalise by the batch
    extra: Extra = field(default_factory=dict)
    seen: dict[nn.Module, Moments] = field(default_factory=dict)  # what each of them reported in this forward

    def enter(
        self, mask: Tensor | None, key: Tensor, normaliser: Normaliser | None = None, extra: Extra | None = None
    ) -> None:
        """Start a forward."""
        self.mask, self.key, self.calls, self.seen = mask, key, 0, {}
        self.normaliser, self.extra = normaliser, extra or {}

    def leave(self) -> None:
        """Let go of the forward's tensors."""
        self.mask = self.key = self.normaliser = None
        self.extra, self.seen = {}, {}

    def observe(self, layer: nn.Module, moments: Moments) -> None:
        """Record what a layer reports. A forward may pass it more than once."""
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
    statistics move towards that mean and the unbiased variance, as `torch.nn.BatchNorm1d`, 2d and 3d do. A batch
    without a second value per channel has no variance: it is normalised with 0, and leaves the running variance as it
    is, where PyTorch raises an error. A client with one example is common in a federation, and stopping it would stop
    everyone.
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
        """x [B, C, ...] -> the same shape."""
        if not self.training and self.tracks:
            return self._affine(normalise(x, self.running_mean, self.running_var, self.eps))
        mask, normaliser = self.scope.mask, self.scope.normaliser
        if mask is None and normaliser is None and self._is_torchs(x):
            return self._by_torch(x)
        batch = batch_moments(x, mask)
        if normaliser is not None and self.tracks:
            extra = self.scope.extra.get(self, {})
            y, seen = normaliser(LayerInput(x, batch, self.running_mean, self.running_var, self.eps, mask, extra))
            self.scope.observe(self, Moments(seen.mean.detach(), seen.var.detach(), seen.number))
            return self._affine(y)
        if self.training and self.moves:
            self._track(batch.mean.detach(), batch.var.detach(), batch.number)
        return self._affine(normalise(x, batch.mean, batch.var, self.eps))

    def _is_torchs(self, x: Tensor) -> bool:
        """Whether PyTorch's own kernel, which is several times as fast, does the same to a batch of real rows."""
        several = x.shape[0] * prod(x.shape[2:]) > 1
        return several and not (self.moves and self.momentum is None)

    def _by_torch(self, x: Tensor) -> Tensor:
        moves = self.training and self.moves
        if moves:
            self.num_batches_tracked.add_(1)
        mean, var = (self.running_mean, self.running_var) if moves else (None, None)
        return F.batch_norm(x, mean, var, self.weight, self.bias, True, self.momentum or 0.0, self.eps)

    def _track(self, mean: Tensor, var: Tensor, count: Tensor) -> None:
        real = (count > 0).to(mean.dtype)  # a batch of padding alone changes nothing
        self.num_batches_tracked.add_(real.to(torch.int64))
        share = real / self.num_batches_tracked.clamp(min=1) if self.momentum is None else real * self.momentum
        unbiased = torch.where(count > 1, var * (count / (count - 1).clamp(min=1)), self.running_var)
        self.running_mean.copy_(torch.lerp(self.running_mean, mean, share.to(mean.dtype)))
        self.running_var.copy_(torch.lerp(self.running_var, unbiased, share.to(mean.dtype)))

    def _affine(self, y: Tensor) -> Tensor:
        if self.weight is not None:
            y = y * per_channel(self.weight, y)
        return y if self.bias is None else y + per_channel(self.bias, y)


class KeyedDropout(nn.Module):
    """Dropout whose mask is a function of the step's key and the layer's place, not of a global generator.

    Entries are zeroed with probability p and the others scaled by 1 / (1 - p), as `torch.nn.Dropout` does; `whole` says
    whether whole channels go together, as in `Dropout1d`, 2d and 3d.
    """

    def __init__(self, p: float, whole: bool, scope: Scope):
        super().__init__()
        self.p, self.whole, self.scope = p, whole, scope

    def forward(self, x: Tensor) -> Tensor:
        """x [B, ...] -> the same shape."""
        if not self.training or self.p == 0:
            return x
        shape = (*x.shape[:2], *[1] * (x.dim() - 2)) if self.whole else x.shape
        kept = rng.uniform(self.scope.next_key(), shape) >= self.p
        return x * kept.to(x.dtype) / (1 - self.p) if self.p < 1 else torch.zeros_like(x)


def swap_layers(model: nn.Module, scope: Scope) -> nn.Module:
    """The model with every BatchNorm and dropout replaced, wherever it sits; other modules are kept as they are.

    A module that appears in two places is replaced by one module in both, so that shared weights stay shared. A class
    that derives from one of torch's and has a forward of its own is the model's own layer, and kept too.
    """
    done: dict[nn.Module, nn.Module] = {}

    def replaced(module: nn.Module) -> nn.Module:
        if module not in done:
            done[module] = _replacement(module, scope)
            for name, child in done[module]._modules.items():  # named_children leaves out a child's second name
                if child is not None:
                    done[module]._modules[name] = replaced(child)
        return done[module]

    return replaced(model)


def _replacement(module: nn.Module, scope: Scope) -> nn.Module:
    if isinstance(module, nn.GroupNorm):
        use_plain_layout_for_constants(module)
    if not has_torch_forward(module):
        return module
    if isinstance(module, _BatchNorm):
        return MaskedBatchNorm(module, scope)
    if isinstance(module, _DropoutNd) and not isinstance(module, (nn.AlphaDropout, nn.FeatureAlphaDropout)):
        return KeyedDropout(module.p, whole=not isinstance(module, nn.Dropout), scope=scope)
    return module


def has_torch_forward(module: nn.Module) -> bool:
    """Whether its forward is one of `torch.nn`'s."""
    return type(module).forward.__module__.startswith("torch.nn.modules.")
