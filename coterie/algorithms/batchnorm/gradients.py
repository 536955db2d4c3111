"""Normalisers by the running statistics (M, V): the same values, with different gradients; and one by the own batch.

All but `own_batch` give y = (x - M) / sqrt(V + eps). All report the batch's own moments. See `coterie.core.normaliser`.

Legend: B batch, C channels.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from coterie.core.normaliser import LayerInput, Moments, Normaliser, normalise, per_channel


def constant_gradient(layer: LayerInput) -> tuple[Tensor, Moments]:
    """Normalise by (M, V), with the gradient of that formula: M and V are constants."""
    return normalise(layer.x, layer.running_mean, layer.running_var, layer.eps), layer.batch


def own_batch(layer: LayerInput) -> tuple[Tensor, Moments]:
    """Normalise by the client's own batch, as BatchNorm does without a normaliser: (M, V) have no part in it."""
    return normalise(layer.x, layer.batch.mean, layer.batch.var, layer.eps), layer.batch


def renorm_gradient(max_r: float | None = None, max_d: float | None = None) -> Normaliser:
    """Return a normaliser by (M, V) with the gradient of BatchNorm on the client's own batch, times r.

    Its formula is ((x - mean) / sd) r + d, where mean and sd are the batch's, and r = sd / sqrt(V + eps) and d = (mean
    - M) / sqrt(V + eps) are held constant.

    Args:
        max_r, max_d: bounds, 1 / max_r <= r <= max_r and -max_d <= d <= max_d. Where one is reached, the value differs
            from (x - M) / sqrt(V + eps) too. None: no bound.

    Ioffe: Batch Renormalization: Towards Reducing Minibatch Dependence in Batch-Normalized Models, NeurIPS 2017,
    Algorithm 1.
    """

    def normaliser(layer: LayerInput) -> tuple[Tensor, Moments]:
        x, (mean, var, number) = layer.x, layer.batch
        sd, running_sd = (var.detach() + layer.eps).sqrt(), (layer.running_var + layer.eps).sqrt()
        r, d = sd / running_sd, (mean.detach() - layer.running_mean) / running_sd
        if max_r is not None:
            r = r.clamp(1 / max_r, max_r)
        if max_d is not None:
            d = d.clamp(-max_d, max_d)
        y = normalise(x, mean, var, layer.eps) * per_channel(r, x) + per_channel(d, x)
        # a single value per channel is its own mean: its gradient would be 0
        single = (x - per_channel(layer.running_mean, x)) / per_channel(running_sd, x)
        return torch.where(number > 1, y, single), layer.batch

    return normaliser


def pooled_gradient(layer: LayerInput) -> tuple[Tensor, Moments]:
    """Normalise by (M, V), with the gradient of BatchNorm on the batches of all clients together.

    Of the gradient g = dl/dy that is mean(g) + y mean(y g) less, over all values of the pooled batch. Both means come
    from the sums of g and of y g that the layer is given as `slopes` [2, C]; see `coterie.algorithms.batchnorm.slopes`.
    Without slopes it is `constant_gradient`. The gradient by the slopes is what they would be for this batch alone.

    Yan, Wan, Zhang, Zhang, Wei, Sun: Towards Stabilizing Batch Statistics in Backward Propagation of Batch
    Normalization, ICLR 2020, has moving averages in the gradient too.
    """
    y, batch = constant_gradient(layer)
    if "slopes" not in layer.extra:
        return y, batch
    real = y.new_ones(()) if layer.mask is None else layer.mask.to(y.dtype).reshape(-1, *[1] * (y.dim() - 1))
    y = _SubtractMeans.apply(y, layer.extra["slopes"], real / batch.number.clamp(min=1))  # type: ignore[no-untyped-call]
    return y, batch


class _SubtractMeans(torch.autograd.Function):
    """Return y [B, C, ...] unchanged; subtract share (s + y t) from its gradient g, with `slopes` s, t.

    The gradient by the slopes is the sums of g and of y g over this batch.
    """

    generate_vmap_rule = True

    @staticmethod
    def forward(y: Tensor, slopes: Tensor, share: Tensor) -> Tensor:
        """Return y unchanged."""
        return y.view_as(y)

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Tensor, Tensor, Tensor], output: Tensor) -> None:
        ctx.save_for_backward(*inputs)

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor, Tensor, None]:
        """Return the gradient by y, g - share (s + y t), and the gradient by the slopes, the sums of g and of y g."""
        y, slopes, share = ctx.saved_tensors
        axes = [0, *range(2, y.dim())]
        s, t = (per_channel(slope, y) for slope in slopes.unbind())
        fresh = torch.stack([gradient.sum(axes), (gradient * y).sum(axes)])
        return gradient - share * (s + y * t), fresh, None
