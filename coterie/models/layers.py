"""Layers that replace PyTorch's where a federation needs more than they give: masks, and randomness by key.

Two of `torch.nn`'s layers cannot be used as they are. BatchNorm counts every row of a batch, so that a short batch
padded to a common length would be normalised wrongly; dropout draws from a global generator, so that its masks depend
on who ran before. Both are swapped, by type, for the ones here; names and shapes of parameters and buffers stay the
same. GroupNorm stays, but for the layout of what it is given (see `memory_layout`).

Legend: B batch, C channels.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from math import prod
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.nn.modules.batchnorm import _BatchNorm
from torch.nn.modules.dropout import _DropoutNd

from coterie.core import rng
from coterie.core.task import SharedNorm
from coterie.models.memory_layout import use_plain_layout_for_constants
from coterie.models.moments import Moments


@dataclass
class Scope:
    """What the swapped layers of one model are told for the length of one forward."""

    mask: Tensor | None = None  # [B] bool
    key: Tensor | None = None  # [] int64
    calls: int = 0  # of dropout layers so far in this forward
    shared: SharedNorm | None = None  # BatchNorm layers normalise so, and observe
    seen: dict[nn.Module, Moments] = field(default_factory=dict)  # what each of them saw in this forward

    def enter(self, mask: Tensor | None, key: Tensor, shared: SharedNorm | None = None) -> None:
        """Start a forward."""
        self.mask, self.key, self.calls, self.shared, self.seen = mask, key, 0, shared, {}

    def leave(self) -> None:
        """Let go of the forward's tensors."""
        self.mask = self.key = self.shared = None
        self.seen = {}

    def observe(self, layer: nn.Module, moments: Moments) -> None:
        """A batch went through this layer, which a forward may pass more than once."""
        before = self.seen.get(layer)
        self.seen[layer] = moments if before is None else before.and_those_of(moments)

    def next_key(self) -> Tensor:
        """A key for the next random layer of this forward."""
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
    slopes: Tensor | None  # [2, C], where they are given; see `SharedNorm`
    phi: Tensor | None  # [C], where it is given; see `SharedNorm`

    def __init__(self, source: _BatchNorm, scope: Scope):
        super().__init__()
        self.eps, self.momentum, self.scope = source.eps, source.momentum, scope
        self.register_parameter("weight", source.weight if source.affine else None)
        self.register_parameter("bias", source.bias if source.affine else None)
        self.tracks = source.running_mean is not None
        self.moves = self.tracks and source.track_running_stats
        for name in ("running_mean", "running_var", "num_batches_tracked"):
            self.register_buffer(name, getattr(source, name) if self.tracks else None)
        self.register_buffer("slopes", None, persistent=False)
        self.register_buffer("phi", None, persistent=False)

    def forward(self, x: Tensor) -> Tensor:
        """x [B, C, ...] -> the same shape."""
        if not self.training and self.tracks:
            return self._normalised(x, self.running_mean, self.running_var)
        if self.scope.mask is None and self.scope.shared is None and self._is_torchs(x):
            return self._by_torch(x)
        mean, var, count = batch_statistics(x, self.scope.mask)
        if self.scope.shared is not None and self.tracks:
            if self.phi is not None:
                mean, var = self._mixed(mean, var, count, self.phi)
            self.scope.observe(self, Moments(mean.detach(), var.detach(), count))
            return self._by_given(x, mean, var, count, self.scope.shared)
        if self.training and self.moves:
            self._track(mean.detach(), var.detach(), count)
        return self._normalised(x, mean, var)

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

    def _by_given(self, x: Tensor, mean: Tensor, var: Tensor, count: Tensor, how: SharedNorm) -> Tensor:
        """Normalised by the running statistics; see `SharedNorm`."""
        if how.gradient == "renorm":
            return self._renormalised(x, mean, var, count, how)
        if how.gradient == "hybrid":
            return self._normalised(x, mean, var)
        shape = (1, -1, *[1] * (x.dim() - 2))  # [1, C, 1, ...]
        y = (x - self.running_mean.reshape(shape)) * torch.rsqrt(self.running_var + self.eps).reshape(shape)
        if how.gradient == "pooled" and self.slopes is not None:
            real = x.new_ones(()) if self.scope.mask is None else self.scope.mask.to(x.dtype).reshape(-1, *shape[2:], 1)
            y = _LessMeans.apply(y, self.slopes, real / count.clamp(min=1))  # type: ignore[no-untyped-call]
        return self._affine(y, shape)

    def _mixed(self, mean: Tensor, var: Tensor, count: Tensor, phi: Tensor) -> tuple[Tensor, Tensor]:
        """The running statistics with a share of the batch's own, but for a single value, which has no variance."""
        own = torch.sigmoid(phi) * (count > 1)
        return torch.lerp(self.running_mean, mean, own), torch.lerp(self.running_var, var, own)

    def _renormalised(self, x: Tensor, mean: Tensor, var: Tensor, count: Tensor, how: SharedNorm) -> Tensor:
        sd, given = (var.detach() + self.eps).sqrt(), (self.running_var + self.eps).sqrt()
        r, d = sd / given, (mean.detach() - self.running_mean) / given
        if how.max_r is not None:
            r = r.clamp(1 / how.max_r, how.max_r)
        if how.max_d is not None:
            d = d.clamp(-how.max_d, how.max_d)
        shape = (1, -1, *[1] * (x.dim() - 2))  # [1, C, 1, ...]
        own = (x - mean.reshape(shape)) * torch.rsqrt(var + self.eps).reshape(shape)
        y = own * r.reshape(shape) + d.reshape(shape)
        # a single value per channel is its own mean: its gradient would be 0
        constant = (x - self.running_mean.reshape(shape)) / given.reshape(shape)
        return self._affine(torch.where(count > 1, y, constant), shape)

    def _track(self, mean: Tensor, var: Tensor, count: Tensor) -> None:
        real = (count > 0).to(mean.dtype)  # a batch of padding alone changes nothing
        self.num_batches_tracked.add_(real.to(torch.int64))
        share = real / self.num_batches_tracked.clamp(min=1) if self.momentum is None else real * self.momentum
        unbiased = torch.where(count > 1, var * (count / (count - 1).clamp(min=1)), self.running_var)
        self.running_mean.copy_(torch.lerp(self.running_mean, mean, share.to(mean.dtype)))
        self.running_var.copy_(torch.lerp(self.running_var, unbiased, share.to(mean.dtype)))

    def _normalised(self, x: Tensor, mean: Tensor, var: Tensor) -> Tensor:
        shape = (1, -1, *[1] * (x.dim() - 2))  # [1, C, 1, ...]
        return self._affine((x - mean.reshape(shape)) * torch.rsqrt(var + self.eps).reshape(shape), shape)

    def _affine(self, y: Tensor, shape: tuple[int, ...]) -> Tensor:
        if self.weight is not None:
            y = y * self.weight.reshape(shape)
        return y if self.bias is None else y + self.bias.reshape(shape)


class _LessMeans(torch.autograd.Function):
    """y [B, C, ...], from whose gradient g means that are given are subtracted: share (s + y t) for `slopes` s, t.

    The gradient by the slopes is what they would be by this batch alone: the sums of g and of y g over all values.
    """

    generate_vmap_rule = True

    @staticmethod
    def forward(y: Tensor, slopes: Tensor, share: Tensor) -> Tensor:
        return y.view_as(y)

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Tensor, Tensor, Tensor], output: Tensor) -> None:
        ctx.save_for_backward(*inputs)

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor, Tensor, None]:
        y, slopes, share = ctx.saved_tensors
        axes, shape = [0, *range(2, y.dim())], (1, -1, *[1] * (y.dim() - 2))
        s, t = (slope.reshape(shape) for slope in slopes.unbind())
        fresh = torch.stack([gradient.sum(axes), (gradient * y).sum(axes)])
        return gradient - share * (s + y * t), fresh, None


def batch_statistics(x: Tensor, mask: Tensor | None) -> tuple[Tensor, Tensor, Tensor]:
    """Mean [C], biased variance [C] and number of values per channel [] of the real rows of x [B, C, ...]."""
    axes = [0, *range(2, x.dim())]
    per_row = prod(x.shape[2:])
    if mask is None:
        count = torch.tensor(float(x.shape[0] * per_row), dtype=x.dtype, device=x.device)
        var, mean = torch.var_mean(x, axes, correction=0)
        return mean, var, count
    keep = mask.to(x.dtype).reshape(-1, *[1] * (x.dim() - 1))  # [B, 1, ...]
    count = mask.sum().to(x.dtype) * per_row
    safe = count.clamp(min=1)
    mean = (x * keep).sum(axes) / safe
    centred = (x - mean.reshape(1, -1, *[1] * (x.dim() - 2))) * keep
    return mean, (centred * centred).sum(axes) / safe, count


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


def swap(model: nn.Module, scope: Scope) -> nn.Module:
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
    if not torchs(module):
        return module
    if isinstance(module, _BatchNorm):
        return MaskedBatchNorm(module, scope)
    if isinstance(module, _DropoutNd) and not isinstance(module, (nn.AlphaDropout, nn.FeatureAlphaDropout)):
        return KeyedDropout(module.p, whole=not isinstance(module, nn.Dropout), scope=scope)
    return module


def torchs(module: nn.Module) -> bool:
    """Whether its forward is one of `torch.nn`'s."""
    return type(module).forward.__module__.startswith("torch.nn.modules.")
