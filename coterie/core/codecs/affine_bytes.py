"""A codec that sends each number as a byte: the number of steps above the smallest one of its tensor.

    step = (max - min) / 255;  code = floor((x - min) / step + u);  x' = min + code * step

With stochastic rounding, u is uniform in [0, 1), so that x' is x on average and lies within one step of it. With
nearest rounding, u = 1/2, so that x' lies within half a step, but numbers that are far smaller than a step all move in
the same direction, round after round.

Alistarh, Grubic, Li, Tomioka, Vojnovic: QSGD, NeurIPS 2017 (stochastic rounding). Here the steps are even from the
smallest number to the largest, for each tensor.
"""

from __future__ import annotations

from typing import Literal

import torch
from torch import Tensor

from coterie.core import rng, tree
from coterie.core.errors import require
from coterie.core.transforms import Transform
from coterie.core.tree import Tree

LEVELS = 255


def uint8(rounding: Literal["stochastic", "nearest"] = "stochastic") -> Transform:
    """Return a transform that sends each float as one byte, with two numbers for each tensor.

    The payload holds three trees of the update's structure: "codes" (uint8), "low" and "step" ([] each, of the tensor's
    type). A tensor of whole numbers travels unchanged. A tensor that is not finite gets a step that is not finite, so
    that the server refuses it.

    Raises:
        Mistake: there is no such rounding.
    """
    require("rounding", rounding, rounding in ("stochastic", "nearest"), '"stochastic" or "nearest"')

    def encode(update: Tree, state: Tree, key: Tensor) -> tuple[Tree, Tree]:
        low, step = tree.map(_lowest, update), tree.map(_step, update)
        numbers = iter(range(len(tree.leaves(update))))

        def to_codes(x: Tensor, low: Tensor, step: Tensor) -> Tensor:
            draw = rng.fold(key.to(x.device), next(numbers))
            if not x.is_floating_point():
                return x
            u = rng.uniform(draw, x.shape).to(x.dtype) if rounding == "stochastic" else 0.5
            steps = (x - low) / torch.where(step > 0, step, 1.0)
            return (steps + u).floor().nan_to_num().clamp(0, LEVELS).to(torch.uint8)

        return {"codes": tree.map(to_codes, update, low, step), "low": low, "step": step}, state

    return Transform(encode, _decode, problem=_problem)


def _lowest(x: Tensor) -> Tensor:
    """Return the smallest number of a tensor []; 0 for whole numbers, and where there are none."""
    return x.min() if x.is_floating_point() and x.numel() else x.new_zeros(())


def _step(x: Tensor) -> Tensor:
    """Return the step of a tensor []; 0 for whole numbers, and where there are none."""
    return (x.max() - x.min()) / LEVELS if x.is_floating_point() and x.numel() else x.new_zeros(())


def _decode(payload: Tree) -> Tree:
    def from_codes(codes: Tensor, low: Tensor, step: Tensor) -> Tensor:
        return low + codes.to(low.dtype) * step if low.is_floating_point() else codes

    return tree.map(from_codes, payload["codes"], payload["low"], payload["step"])


def _problem(payload: Tree) -> str | None:
    """Return what is wrong with the steps of a payload: they go down, or up to numbers that are not finite."""
    for (path, low), step in zip(tree.items(payload["low"]), tree.leaves(payload["step"]), strict=True):
        if bool(step < 0):
            return f"step/{tree.pointer(path)} is below 0"
        if not bool((low + LEVELS * step).isfinite()):
            return f"step/{tree.pointer(path)} leads to numbers that are not finite"
    return None
