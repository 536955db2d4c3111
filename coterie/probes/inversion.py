"""Gradient inversion: examples from the update that they gave rise to.

    z        <- uniform in [0, 1]                                  examples, in units of their range
    each iteration:
        x    <- low + (high - low) z
        loss <- 1 - cos(update(x), seen) + weight TV(z)            cosine, Geiping et al., equation 4
             or |update(x) - seen|^2 / |seen|^2                    squared, Zhu et al., equation 4
        z    <- z - rate sign(Adam's direction), clipped to [0, 1] cosine;  a step of L-BFGS: squared

`update` is what the attacked client computes, see `coterie.probes.local_work`; `seen` is what the attacker got. The
cosine does not see the length of an update, so clipping does not hinder it. TV is the total variation of pictures.

Departures from the papers: labels are given, as they follow from the update first (`coterie.probes.closed_forms`), and
z stays within the range that the data of the task are known to have. Far fewer iterations than theirs are the default,
so a failed attack proves nothing.

Zhu, Liu, Han: Deep Leakage from Gradients, NeurIPS 2019.
Geiping, Bauermeister, Dröge, Moeller: Inverting Gradients - How easy is it to break privacy in federated learning?,
NeurIPS 2020.

Legend: B examples.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Literal, NamedTuple

import torch
from torch import Tensor

from coterie.core import rng, tree
from coterie.core.errors import Mistake, require
from coterie.core.tree import Tree
from coterie.probes.local_work import Work

Match = Literal["cosine", "squared"]
RATE = 0.1
DECAYS = ((3, 8), (5, 8), (7, 8))
"""After these shares of the iterations the rate falls to a tenth, as Geiping et al. do it."""
STEPS_OF_LBFGS = 10
"""L-BFGS looks at the loss about this many times in one of its own steps."""


class Range(NamedTuple):
    """Between which values examples lie; each is a number [] or one for each number of an example [...]."""

    low: Tensor
    high: Tensor

    def scale(self, z: Tensor) -> Tensor:
        """Return examples [B, ...] from numbers between 0 and 1 [B, ...]."""
        return self.low + (self.high - self.low) * z

    def unscale(self, x: Tensor) -> Tensor:
        """Return examples [B, ...] in units of their range; where it has no width, 0."""
        width = self.high - self.low
        return torch.where(width > 0, (x - self.low) / torch.where(width > 0, width, 1.0), 0.0)


@dataclass(frozen=True)
class Inversion:
    """How an update is inverted.

    Attributes:
        match: "cosine" or "squared".
        iterations: how often the examples are moved; of L-BFGS about as many looks at the loss.
        variation: the weight of the total variation, for pictures [B, C, H, W] under "cosine".
        restarts: how many starts are tried; the one with the lowest loss is returned.

    Raises:
        Mistake: a value is out of its range.
    """

    match: Match = "cosine"
    iterations: int = 300
    variation: float = 1e-3
    restarts: int = 1

    def __post_init__(self) -> None:
        require("match", self.match, self.match in ("cosine", "squared"), "cosine or squared")
        require("iterations", self.iterations, self.iterations >= 1, "1 or more")
        require("variation", self.variation, self.variation >= 0, "0 or more")
        require("restarts", self.restarts, self.restarts >= 1, "1 or more")

    def invert(self, work: Work, seen: Tree, y: Tensor | None, shape: Sequence[int], box: Range, key: Tensor) -> Tensor:
        """Return examples [B, ...] whose update is like the one that was seen.

        Args:
            work: what the attacked client computes.
            seen: the update's parameters.
            y: the examples' labels [B, ...].
            shape: of the examples, [B, ...].
            box: between which values they lie.
            key: of the starts, int64 [].

        Raises:
            Mistake: the client's steps have no derivative in its examples.
        """
        found: tuple[float, Tensor] | None = None
        for k in range(self.restarts):
            z = rng.uniform(rng.fold(key, k), shape).to(box.low)
            loss, z = self._descend(lambda z: self._loss(work(box.scale(z), y), seen, z), z)
            if found is None or loss < found[0]:
                found = loss, z
        assert found is not None
        return box.scale(found[1])

    def _loss(self, update: Tree, seen: Tree, z: Tensor) -> Tensor:
        """Return how unlike two updates are, and how rough the pictures are []."""
        if self.match == "squared":
            difference = tree.sub(update, seen)
            return tree.dot(difference, difference) / tree.dot(seen, seen).clamp(min=1e-30)
        cosine = tree.dot(update, seen) / (tree.norm(update) * tree.norm(seen)).clamp(min=1e-30)
        return 1 - cosine + (self.variation * total_variation(z) if z.dim() == 4 and self.variation else 0.0)

    def _descend(self, loss_of: Callable[[Tensor], Tensor], z: Tensor) -> tuple[float, Tensor]:
        """Return the loss at the end and the numbers z [B, ...] that it was found at."""
        z = z.clone().requires_grad_()
        with torch.enable_grad():
            if self.match == "squared":
                self._descend_by_lbfgs(loss_of, z)
            else:
                self._descend_by_signs(loss_of, z)
        with torch.no_grad():
            z.nan_to_num_(0.5).clamp_(0, 1)
            return float(loss_of(z).nan_to_num(torch.inf)), z.detach()

    def _descend_by_signs(self, loss_of: Callable[[Tensor], Tensor], z: Tensor) -> None:
        """Move z by the signs of gradients; write into it."""
        optimizer = torch.optim.Adam([z], lr=RATE)
        rates = torch.optim.lr_scheduler.MultiStepLR(optimizer, [self.iterations * a // b for a, b in DECAYS])
        for _ in range(self.iterations):
            z.grad = _gradient(loss_of(z), z).sign()
            optimizer.step()
            rates.step()
            with torch.no_grad():
                z.clamp_(0, 1)

    def _descend_by_lbfgs(self, loss_of: Callable[[Tensor], Tensor], z: Tensor) -> None:
        """Move z by L-BFGS; write into it."""
        optimizer = torch.optim.LBFGS([z], lr=1.0, max_iter=STEPS_OF_LBFGS, line_search_fn="strong_wolfe")

        def measure() -> Tensor:
            loss = loss_of(z)
            z.grad = _gradient(loss, z)
            return loss

        for _ in range(-(-self.iterations // STEPS_OF_LBFGS)):
            optimizer.step(measure)  # type: ignore[no-untyped-call]


def _gradient(loss: Tensor, z: Tensor) -> Tensor:
    """Return the gradient of the loss at z [B, ...]; refuse one that is not finite."""
    (gradient,) = torch.autograd.grad(loss, [z])
    if not bool(gradient.isfinite().all()):
        raise Mistake(
            "the update cannot be inverted by a search: the client's steps have no derivative in its examples, as "
            "those of adam and rmsprop have none where a gradient is 0; choose --attack membership"
        )
    return gradient


def total_variation(z: Tensor) -> Tensor:
    """Return the mean distance between neighbouring pixels of pictures [B, C, H, W], [].

    >>> float(total_variation(torch.tensor([[[[0.0, 1.0], [0.0, 1.0]]]])))
    1.0
    """
    return (z[..., :, 1:] - z[..., :, :-1]).abs().mean() + (z[..., 1:, :] - z[..., :-1, :]).abs().mean()
