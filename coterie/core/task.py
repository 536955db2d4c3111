"""A model and its loss as pure functions: all that an algorithm knows about the model it trains.

Legend: B batch, C classes.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, NamedTuple, Protocol, TypeAlias

import torch
from torch import Tensor
from torch.nn import functional as F

from coterie.core.normaliser import Normaliser
from coterie.core.tree import Tree

Score: TypeAlias = Callable[[Tensor, Any], tuple[Tensor, Tensor]]
"""(outputs [B, ...], y [B, ...]) -> (sums [B], counts [B]): a measure of each example, for labels of any shape.

Sums and counts of several batches are merged by adding. For a classification the counts are ones; for a sequence a
count is the number of real tokens.
"""


class Metric(ABC):
    """A measure of many examples together that is not a mean over them, such as the area under a curve.

    The examples give totals, numbers that are added up over batches, processes, clients and silos; the value follows
    from the sum. So it is the same as if all examples lay in one place.

    Attributes:
        size: K, how many totals there are.
        higher_is_better: whether a larger value is a better one.
        needs: what the examples must have for the value to be defined, in words.
    """

    size: int
    higher_is_better: bool = True
    needs: str = "examples to measure it on"

    @abstractmethod
    def totals(self, outputs: Tensor, y: Tensor | None) -> Tensor:
        """Return the totals, float64 [K] on the CPU, of outputs [B, ...] and labels y [B, ...].

        Raises:
            Mistake: they do not fit together.
        """

    @abstractmethod
    def value(self, totals: Tensor) -> float:
        """Return the measure for the sum of all totals [K]; NaN where it is not defined."""

    @property
    def has_interval(self) -> bool:
        """Whether the metric knows how far its value would move with other test examples."""
        return False

    def interval(self, totals: Tensor) -> tuple[float, float] | None:
        """Return the ends of a 95 % interval of the value for these totals [K]; None where it cannot be told."""
        return None

    @property
    def needs_of_own(self) -> str | None:
        """What a client's own test data must have, in words, where it is more than `needs`."""
        return None

    def is_enough(self, totals: Tensor) -> bool:
        """Return whether a client's own test data, with these totals [K], have what `needs_of_own` says."""
        return True


class Batch(NamedTuple):
    """One stream's share of a step."""

    x: Tensor  # [B, ...]
    y: Tensor | None  # [B, ...]
    rows: Tensor  # [B] int64, each example's row in the stream's data, to look it up in a table about them
    mask: Tensor | None  # [B] bool, which examples are real; None: all are
    key: Tensor  # [] int64
    expected: Tensor | None = None  # [] how many examples a Poisson batch has on average; 0 after a client's last step
    noise: Tensor | None = None  # [number] standard normal numbers, for a `GradientRule`


class GradientRule(Protocol):
    """Another way from a batch to a gradient than that of the mean loss, such as one that hides each example."""

    @property
    def numbers(self) -> int:
        """How many standard normal numbers it takes in each step."""

    def __call__(self, task: Task, params: Tree, buffers: Tree, batch: Batch) -> tuple[Tree, Tree, dict[str, Tensor]]:
        """Return what `Task.gradient` does."""

    def measure(self, task: Task, params: Tree, buffers: Tree, batch: Batch) -> tuple[Tree, dict[str, Tensor]]:
        """Return the buffers and the logs of a forward without a gradient."""


class Apply(Protocol):
    """A model's training forward."""

    def __call__(self, params: Tree, buffers: Tree, x: Tensor, mask: Tensor | None, key: Tensor) -> tuple[Tensor, Tree]:
        """Return outputs [B, ...] and the buffers after the forward, for x [B, ...], mask [B] or None, and key []."""


@dataclass(frozen=True)
class Encoder:
    """A model up to its classifier: the part that can learn without labels.

    Attributes:
        forward: () -> a training forward that returns features [B, width]. Its parameters may include the classifier's.
        width: the number of features.
        head: names of the classifier's parameters.
    """

    forward: Callable[[], Apply]
    width: int
    head: frozenset[str]


class Differentiate(Protocol):
    """A way to take gradients."""

    def __call__(self, f: Callable[[Tree], tuple[Tensor, Any]], params: Tree) -> tuple[Tree, Any]:
        """Return the gradient of the loss and aux, where f(params) -> (loss [], aux)."""


def gradient_by_tape(f: Callable[[Tree], tuple[Tensor, Any]], params: Tree) -> tuple[Tree, Any]:
    """Differentiate by PyTorch's tape, which is fastest for one client at a time; see `Differentiate`."""
    with torch.enable_grad():
        tracked = {name: p.detach().requires_grad_() for name, p in params.items()}
        loss, aux = f(tracked)
        grads = torch.autograd.grad(loss, list(tracked.values()), allow_unused=True, materialize_grads=True)
    return dict(zip(tracked, grads, strict=True)), aux


def gradient_by_func(f: Callable[[Tree], tuple[Tensor, Any]], params: Tree) -> tuple[Tree, Any]:
    """Differentiate by `torch.func.grad`, which `torch.func.vmap` can batch over clients; see `Differentiate`."""
    grads, aux = torch.func.grad(f, has_aux=True)(params)
    return grads, aux


@dataclass(frozen=True)
class Task:
    """One architecture with one loss.

    Attributes:
        apply: the training forward; see `Apply`. Nothing is kept between calls: buffers go in and come out.
        predict: (params, buffers, x [B, ...]) -> outputs [B, ...], in evaluation mode. The outputs have a gradient
            where an argument requires one.
        loss: the objective as a `Score`; the batch's loss is the sum of sums over the sum of counts.
        metrics: further measures by name, "accuracy" among them where there are classes.
        num_classes: C, or None.
        norm_leaves: names of the parameters and buffers that belong to normalisation layers, found by type.
        frozen: parameters that are never trained, and statistics of normalisation layers that never move, by name. They
            are constants of the model: saved with it, but never broadcast, sent or kept by a client.
        lr_scale: by name, the factor on a parameter's gradient, and so on its learning rate; 1 unless given.
        tied: second name -> first name, for parameters and buffers that the model's `state_dict` has under several.
        batch_norms: names of the BatchNorm layers that call a normaliser, found by type.
        unsupported_batch_norms: names of those that cannot: without running statistics, or with a forward of their own.
        apply_with: (normaliser) -> a training forward in which these layers call it; see `coterie.core.normaliser`.
            The buffers that this forward returns hold what each layer reported in the places of its statistics: the
            mean, the biased variance, and as `num_batches_tracked` the number of values per channel. Further parameters
            of a layer, for the normaliser, stand among the parameters as <layer>.<name>. None: there is no such
            forward.
        kernels_before_norms: () -> names of the kernels of convolutions whose output goes straight into a BatchNorm
            layer; see `coterie.models.kernels_before_norms`. It raises `Mistake` where the graph cannot be read.
        encoder: the model up to its classifier; None where there is no such part.
        unbatchable: why clients of this architecture cannot be batched by `torch.func.vmap`; None where no reason is
            known beforehand.
        unpaddable: why a short batch of this architecture must not be padded and masked; None where no reason is known.
        autodiff: how gradients are taken; set by the engine.
        moving_buffers: names of the float buffers, other than BatchNorm's, that a training forward changes.
        gradient_rule: takes the gradient of a batch in place of this task; None: it is that of the mean loss.
    """

    apply: Apply
    predict: Callable[[Tree, Tree, Tensor], Tensor]
    loss: Score
    metrics: dict[str, Score | Metric]
    num_classes: int | None
    norm_leaves: frozenset[str]
    frozen: Tree = field(default_factory=dict)
    lr_scale: Mapping[str, float] = field(default_factory=dict)
    tied: Mapping[str, str] = field(default_factory=dict)
    unbatchable: str | None = None
    unpaddable: str | None = None
    batch_norms: tuple[str, ...] = ()
    unsupported_batch_norms: tuple[str, ...] = ()
    apply_with: Callable[[Normaliser], Apply] | None = None
    kernels_before_norms: Callable[[], tuple[str, ...]] = tuple
    encoder: Encoder | None = None
    autodiff: Differentiate = gradient_by_tape
    moving_buffers: tuple[str, ...] = ()
    gradient_rule: GradientRule | None = None

    def differentiate(self, f: Callable[[Tree], tuple[Tensor, Any]], params: Tree) -> tuple[Tree, Any]:
        """Return the gradient of f's loss, each leaf times its `lr_scale`, and f's aux; see `Differentiate`."""
        grads, aux = self.autodiff(f, params)
        if self.lr_scale:
            grads = {name: g * self.lr_scale[name] if name in self.lr_scale else g for name, g in grads.items()}
        return grads, aux

    def state_dict(self, weights: Tree) -> dict[str, Tensor]:
        """Return {"params", "buffers"} and the frozen values as one dict with the names of the model's `state_dict`."""
        named = {**self.frozen, **weights["params"], **weights["buffers"]}
        return named | {second: named[first] for second, first in self.tied.items()}

    def gradient(self, params: Tree, buffers: Tree, batch: Batch) -> tuple[Tree, Tree, dict[str, Tensor]]:
        """Return the gradient of the batch's mean loss, the buffers after the forward, and logs.

        The logs are "loss", a sum over examples, and "count". Examples that are not real are left out of the loss, of
        normalisation's statistics and of the logs. A `gradient_rule` may do otherwise.
        """
        if self.gradient_rule is not None:
            return self.gradient_rule(self, params, buffers, batch)

        def objective(p: Tree) -> tuple[Tensor, tuple[Tree, dict[str, Tensor]]]:
            outputs, new_buffers = self.apply(p, buffers, batch.x, batch.mask, batch.key)
            total, count = masked_sums(self.loss, outputs, batch.y, batch.mask)
            return mean_of_sums(total, count), (new_buffers, {"loss": total.detach(), "count": count.detach()})

        grads, (new_buffers, logs) = self.differentiate(objective, params)
        return grads, new_buffers, logs


def masked_sums(score: Score, outputs: Tensor, y: Tensor | None, mask: Tensor | None) -> tuple[Tensor, Tensor]:
    """Return the sums of a score's sums and of its counts over the real examples, [] each."""
    sums, counts = score(outputs, y)  # [B], [B]
    if mask is not None:
        sums, counts = torch.where(mask, sums, 0.0), torch.where(mask, counts, 0.0)
    return sums.sum(), counts.sum()


def mean_of_sums(total: Tensor, count: Tensor) -> Tensor:
    """Return total / count [], where a batch in which nothing counts has the count 0 and is divided by 1.

    A count may lie between 0 and 1: weights of examples can sum to less than 1 in a batch.

    >>> float(mean_of_sums(torch.tensor(0.2), torch.tensor(0.4))), float(mean_of_sums(torch.zeros(()), torch.zeros(())))
    (0.5, 0.0)
    """
    return total / F.threshold(count, 0, 1)  # one operation on the hot path: a count above 0 stays, 0 becomes 1
