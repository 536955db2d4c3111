"""Losses of predicted numbers: squared, absolute and in between.

Legend: B batch, L numbers of an example.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from torch import Tensor
from torch.nn import functional as F

from coterie.core.errors import Mistake
from coterie.objectives.kinds import KINDS, REGRESSION_LOSSES, fit

_LOSSES: dict[str, Callable[..., Tensor]] = {
    "mse": F.mse_loss,
    "l1": F.l1_loss,
    "huber": F.huber_loss,
    "smooth_l1": F.smooth_l1_loss,
}
assert tuple(_LOSSES) == REGRESSION_LOSSES


@dataclass(frozen=True)
class NumberLoss:
    """One of PyTorch's losses of numbers with its default options, as a `Score`.

    Attributes:
        name: "mse", "l1", "huber" or "smooth_l1".
        ignore_index: a label that counts for nothing.
    """

    name: str = "mse"
    ignore_index: int | None = None

    def __post_init__(self) -> None:
        if self.name not in _LOSSES:
            raise Mistake(key="loss", value=self.name, allowed=f"one of {', '.join(_LOSSES)}")

    def __call__(self, outputs: Tensor, y: Tensor | None) -> tuple[Tensor, Tensor]:
        """Return the sum over each example's numbers [B], and how many count [B]."""
        outputs, target = fit(KINDS["regression"], outputs, y)
        losses = _LOSSES[self.name](outputs, target, reduction="none")
        counts = losses.new_ones(losses.shape)
        if self.ignore_index is not None:
            counts = (target != self.ignore_index).to(losses.dtype)
            losses = losses * counts
        return (losses.sum(1), counts.sum(1)) if losses.dim() > 1 else (losses, counts)


squared_error, absolute_error = NumberLoss("mse"), NumberLoss("l1")
