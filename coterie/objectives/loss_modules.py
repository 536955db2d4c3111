"""PyTorch's loss modules as scores: sums and counts that give exactly PyTorch's mean, for any division into batches.

`reduction = "mean"` of a module is a sum over a sum: over the number of elements; or, of cross-entropy with class
weights, over the sum of the weights of the labels. Both sums are kept for each example. So the mean of a batch that is
spread over clients, padded or masked is the one that PyTorch would give for it whole.

Legend: B batch, C classes.
"""

from __future__ import annotations

import copy
from typing import Any

import torch
from torch import Tensor, nn

from coterie.core.errors import Mistake, require
from coterie.objectives.classification import require_fit, require_labels

ELEMENTWISE = (
    nn.BCEWithLogitsLoss,
    nn.BCELoss,
    nn.MSELoss,
    nn.L1Loss,
    nn.SmoothL1Loss,
    nn.HuberLoss,
    nn.PoissonNLLLoss,
    nn.SoftMarginLoss,
)
"""Losses of each number alone: a label for each output, in the outputs' type."""
OF_CLASSES = (nn.CrossEntropyLoss, nn.NLLLoss)
"""Losses that want the classes in the second dimension."""


class ModuleLoss:
    """A loss module of PyTorch as a `Score`.

    Args:
        module: with reduction "mean". It is copied, and its numbers (class weights and the like) never change.

    Raises:
        Mistake: it has another reduction, or learns something itself.

    >>> loss = ModuleLoss(nn.MSELoss())
    >>> sums, counts = loss(torch.tensor([[1.0], [3.0]]), torch.tensor([0.0, 1.0]))
    >>> float(sums.sum() / counts.sum())
    2.5
    """

    def __init__(self, module: nn.Module) -> None:
        self.name = type(module).__name__
        reduction = getattr(module, "reduction", None)
        per_example = isinstance(module, nn.KLDivLoss) and reduction == "batchmean"
        if reduction != "mean" and not per_example:
            found = f"has the reduction {reduction!r}" if reduction is not None else "has no reduction"
            raise Mistake(
                f"nn.{self.name} {found}; give one with reduction = 'mean', or a function (outputs, y) -> (sums [B], "
                "counts [B]); a sum would make a step's size depend on the batch's",
                key="loss",
            )
        if any(True for _ in module.parameters()):
            sentence = f"{self.name} has parameters, which nobody would train; make them buffers, or part of the model"
            raise Mistake(sentence, key="loss")
        self.original = copy.deepcopy(module).eval()
        self.module = _without_reduction(module)
        self.per_example = per_example

    def to(self, device: torch.device, dtype: torch.dtype) -> ModuleLoss:
        """Return the loss with its own numbers on a device, in a type of number."""
        moved = copy.copy(self)
        moved.module = copy.deepcopy(self.module).to(device, dtype)
        moved.original = copy.deepcopy(self.original).to(device, dtype)
        return moved

    def __call__(self, outputs: Tensor, y: Tensor | None) -> tuple[Tensor, Tensor]:
        """Return each example's sum [B], and what it counts [B]; see `Score`.

        Raises:
            Mistake: outputs and labels do not fit the module.
        """
        outputs, y = self.arrange(outputs, require_labels(y))
        each = self.module(outputs, y)
        if each.shape[:1] != outputs.shape[:1]:
            shape = list(each.shape)
            raise Mistake(f"{self.name} gives {shape} without a reduction, not a number for each example", key="loss")
        counts = self._weights_of(y) if isinstance(self.module, OF_CLASSES) else torch.ones_like(each)
        counts = counts.to(each.dtype)
        if self.per_example:
            return each.flatten(1).sum(1), torch.ones_like(each.flatten(1)[:, 0])
        return _per_example(each), _per_example(counts.expand_as(each) if counts.dim() < each.dim() else counts)

    def arrange(self, outputs: Tensor, y: Tensor) -> tuple[Tensor, Tensor]:
        """Return outputs and labels in the order, shape and type that the module takes.

        Raises:
            Mistake: they do not fit.
        """
        if isinstance(self.module, OF_CLASSES):
            if y.is_floating_point():  # the probability of each class
                return outputs.movedim(-1, 1), y.to(outputs.dtype).movedim(-1, 1)
            require_fit(outputs, y)
            return outputs.movedim(-1, 1), y.long()
        if isinstance(self.module, ELEMENTWISE):
            if outputs.shape != y.shape and outputs.shape == (*y.shape, 1):
                outputs = outputs.squeeze(-1)
            if outputs.shape != y.shape:
                raise Mistake(
                    f"the outputs have shape {list(outputs.shape)} and the labels {list(y.shape)}; nn.{self.name} "
                    "needs them alike, a label for each output",
                    key="loss",
                )
            return outputs, y.to(outputs.dtype)
        return outputs, y

    def _weights_of(self, y: Tensor) -> Tensor:
        """Return what each label counts in the mean: its class's weight, 0 where it is ignored."""
        if y.is_floating_point():
            return torch.ones_like(y[:, 0])
        keep: Tensor = y != self.module.ignore_index
        if self.module.weight is None:
            return keep
        weights: Tensor = self.module.weight
        return torch.where(keep, weights[torch.where(keep, y, 0)], 0.0)


def _without_reduction(module: Any) -> Any:
    bare = copy.deepcopy(module).eval()
    bare.reduction = "none"
    return bare


def _per_example(values: Tensor) -> Tensor:
    return values.flatten(1).sum(1) if values.dim() > 1 else values


@torch.no_grad()
def check_module_loss(loss: ModuleLoss, outputs: Tensor, y: Tensor) -> None:
    """Check that the score gives what the module itself gives, for one batch of outputs and labels.

    Raises:
        Mistake: it does not, as where a module's mean is another mean than PyTorch's own losses take.
    """
    sums, counts = loss(outputs, y)
    theirs = loss.original(*loss.arrange(outputs, y))
    if theirs.dim() != 0:
        raise Mistake(f"{loss.name} gives {list(theirs.shape)} with reduction = 'mean', not one number", key="loss")
    ours = sums.sum() / counts.sum()
    same = torch.isclose(ours, theirs.to(ours.dtype), rtol=1e-4, atol=1e-6, equal_nan=True)
    require(
        "loss",
        loss.name,
        bool(same) or not bool(theirs.isfinite()),
        "a module whose mean is the sum over its elements divided by their number; for another mean give a function "
        "(outputs, y) -> (sums [B], counts [B])",
    )
