"""Optimisers, as values: how weights move along a gradient, at clients and at the server alike.

At a client the gradient g is that of a batch. At the server it is the averaged difference d = mean(w - w_i), which
points where a gradient points.

    sgd        m <- beta m + (1 - damping) g                 w <- w - lr m            (momentum beta)
               with nesterov                                 w <- w - lr (g + beta m)
    adaptive   m <- beta1 m + (1 - beta1) g                  w <- w - lr m / (sqrt(v) + tau)
      adagrad    v <- v + g^2
      adam       v <- beta2 v + (1 - beta2) g^2
      yogi       v <- v - (1 - beta2) g^2 sign(v - g^2)
    muon       m <- beta m + g                               w <- w - lr sigma |w| O / |O|   (kernels of convolutions)
                                                             w <- w - lr m                   (all other parameters)
               O is m [filters, entries] with its singular values near 1

v starts at tau^2, the least that Algorithm 2 allows, and m at 0; neither is corrected for that bias, as there. `sgd`
and the adaptive ones act on parameters coordinate by coordinate. The conventions of `sgd` are those of
`torch.optim.SGD`: the gradient is clipped first, then weight decay is added, then momentum, whose first g is not
damped. Adam and others by the conventions of `torch.optim`, for clients, are in `coterie.algorithms.local_optimizers`.

Reddi, Charles, Zaheer, Garrett, Rush, Konecny, Kumar, McMahan: Adaptive Federated Optimization, ICLR 2021, Algorithm 2.
Hsu, Qi, Brown: Measuring the Effects of Non-Identical Data Distribution for Federated Visual Classification, 2019, for
momentum at the server.
Jordan, Jin, Boza, You, Cesista, Newhouse, Bernstein: Muon: An optimizer for hidden layers in neural networks, 2024, for
the step by an orthogonal matrix. Departures: kernels of convolutions alone take it, linear layers do not; the length of
a step is a share sigma of the kernel's own norm; there is no Nesterov step.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Protocol

import torch
from torch import Tensor

from coterie.core import tree
from coterie.core.errors import require
from coterie.core.tree import Tree


class Apply(Protocol):
    """One step of an optimiser."""

    def __call__(
        self, params: Tree, gradient: Tree, state: Tree, lr: float | Tensor | None = None, /
    ) -> tuple[Tree, Tree]:
        """Return new parameters and the new state; `lr` replaces the optimiser's own."""


@dataclass(frozen=True)
class Optimizer:
    """How weights move along a gradient.

    Attributes:
        init: params -> the initial state; an empty tree if it needs none.
        apply: (params, gradient, state, lr) -> new params, new state. Without an `lr` it is the optimiser's own.
    """

    init: Callable[[Tree], Tree]
    apply: Apply


def sgd(
    lr: float = 1.0,
    momentum: float = 0.0,
    weight_decay: float = 0.0,
    clip_norm: float | None = None,
    dampening: float = 0.0,
    nesterov: bool = False,
) -> Optimizer:
    """Return stochastic gradient descent. At lr 1 and without momentum the server's new w is the average of the w_i.

    Raises:
        Mistake: a value is out of its range.

    >>> params, state = sgd(lr=0.5).apply({"w": torch.tensor(3.0)}, {"w": torch.tensor(2.0)}, {})
    >>> params
    {'w': tensor(2.)}
    """
    _check_lr_and_momentum(lr, momentum)

    def apply(params: Tree, gradient: Tree, state: Tree, rate: float | Tensor | None = None) -> tuple[Tree, Tree]:
        if clip_norm is not None:
            gradient = clip_to_norm(gradient, clip_norm)
        if weight_decay:
            gradient = tree.add(gradient, params, weight_decay)
        if momentum:
            gradient, state = move_momentum(gradient, state)
        return tree.add(params, gradient, -(lr if rate is None else rate)), state

    def move_momentum(gradient: Tree, state: Tree) -> tuple[Tree, Tree]:
        """Return the direction of the step, and the state with the new momentum."""
        fresh, count = gradient, {}
        if dampening:
            count = {"step": state["step"] + 1}
            later = state["step"].clamp(max=1)  # 0 at the first step, and then 1
            fresh = tree.scale(gradient, 1 - dampening * later)
        m = tree.add(fresh, state["momentum"], momentum)
        return tree.add(gradient, m, momentum) if nesterov else m, {"momentum": m, **count}

    def init(params: Tree) -> Tree:
        if not momentum:
            return {}
        count = {"step": zero_of(params)} if dampening else {}
        return {"momentum": tree.zeros_like(params), **count}

    return Optimizer(init, apply)


def adagrad(lr: float = 0.1, momentum: float = 0.0, adaptivity: float = 1e-3) -> Optimizer:
    """Return Adagrad: every coordinate's step shrinks with the sum of its squared gradients so far.

    Raises:
        Mistake: a value is out of its range.
    """
    return _adaptive(lambda v, square: v + square, lr, momentum, adaptivity)


def adam(lr: float = 0.1, momentum: float = 0.9, second_momentum: float = 0.99, adaptivity: float = 1e-3) -> Optimizer:
    """Return Adam: every coordinate's step shrinks with the moving average of its squared gradients.

    Raises:
        Mistake: a value is out of its range.
    """
    keep = second_momentum
    _check_second_momentum(keep)
    return _adaptive(lambda v, square: keep * v + (1 - keep) * square, lr, momentum, adaptivity)


def yogi(lr: float = 0.1, momentum: float = 0.9, second_momentum: float = 0.99, adaptivity: float = 1e-3) -> Optimizer:
    """Return Yogi: like `adam`, but v moves towards the squared gradient by an amount independent of their distance.

    Raises:
        Mistake: a value is out of its range.
    """
    keep = second_momentum
    _check_second_momentum(keep)
    return _adaptive(lambda v, square: v - (1 - keep) * square * torch.sign(v - square), lr, momentum, adaptivity)


def muon(lr: float = 1.0, momentum: float = 0.9, kernel_step: float = 0.03) -> Optimizer:
    """Return Muon: a kernel moves by its momentum, made orthogonal; other parameters move as with `sgd`.

    Args:
        lr: the learning rate of all parameters.
        momentum: that of `sgd`.
        kernel_step: the length of a kernel's step at lr 1, as a share of the kernel's norm. It does not depend on the
            length of the gradient.

    Raises:
        Mistake: a value is out of its range.
    """
    _check_lr_and_momentum(lr, momentum)
    require("kernel_step", kernel_step, 0 < kernel_step < float("inf"), "a number above 0")

    def apply(params: Tree, gradient: Tree, state: Tree, rate: float | Tensor | None = None) -> tuple[Tree, Tree]:
        m = tree.add(gradient, state["momentum"], momentum)
        step = tree.map(lambda w, m: _kernel_step(w, m, kernel_step) if w.dim() > 2 else m, params, m)
        return tree.add(params, step, -(lr if rate is None else rate)), {"momentum": m}

    return Optimizer(lambda params: {"momentum": tree.zeros_like(params)}, apply)


def _kernel_step(kernel: Tensor, momentum: Tensor, share: float) -> Tensor:
    """Return the momentum made orthogonal, its norm `share` times that of the kernel [filters, inputs, ...]."""
    direction = orthogonalise(momentum.flatten(1))
    length = share * kernel.norm() / direction.norm().clamp(min=1e-12)
    step: Tensor = (direction * length).view_as(kernel)
    return step


def orthogonalise(matrix: Tensor) -> Tensor:
    """Return a matrix [m, n] with the singular vectors of `matrix` and singular values near 1, of 0 for a zero matrix.

    Five steps of Newton and Schulz's iteration with Jordan et al.'s coefficients, which leave singular values between
    about 0.7 and 1.2 where those of the matrix are not too small.
    """
    a, b, c = 3.4445, -4.7750, 2.0315
    x: Tensor = matrix / matrix.norm().clamp(min=1e-12)
    wide: Tensor = x if x.shape[0] <= x.shape[1] else x.T
    for _ in range(5):
        square = wide @ wide.T
        wide = a * wide + (b * square + c * square @ square) @ wide
    return wide if x.shape[0] <= x.shape[1] else wide.T


def _adaptive(second: Callable[[Tensor, Tensor], Tensor], lr: float, momentum: float, adaptivity: float) -> Optimizer:
    """Return an adaptive optimiser: w <- w - lr m / (sqrt(v) + tau), where `second` maps (v, g^2) to the new v."""
    _check_lr_and_momentum(lr, momentum)
    require("server_adaptivity", adaptivity, 0 < adaptivity < float("inf"), "a number above 0")

    def init(params: Tree) -> Tree:
        return {
            "first": tree.zeros_like(params),
            "second": tree.map(lambda w: torch.full_like(w, adaptivity**2), params),
        }

    def apply(params: Tree, gradient: Tree, state: Tree, rate: float | Tensor | None = None) -> tuple[Tree, Tree]:
        step = lr if rate is None else rate
        m = tree.map(lambda m, g: momentum * m + (1 - momentum) * g, state["first"], gradient)
        v = tree.map(lambda v, g: second(v, g * g), state["second"], gradient)
        params = tree.map(lambda w, m, v: w - step * m / (v.sqrt() + adaptivity), params, m, v)
        return params, {"first": m, "second": v}

    return Optimizer(init, apply)


def zero_of(params: Tree) -> Tensor:
    """Return the number 0 [] in the parameters' type and on their device, to count steps from."""
    return tree.leaves(params)[0].new_zeros(())


def clip_to_norm(vector: Tree, length: float) -> Tree:
    """Return the vector unchanged, or shortened to the Euclidean norm `length` over all leaves if it is longer."""
    return tree.scale(vector, (length / tree.norm(vector).clamp(min=1e-12)).clamp(max=1.0))


def _check_lr_and_momentum(lr: float, momentum: float) -> None:
    """Refuse a learning rate or a momentum that is out of its range."""
    require("server_lr", lr, 0 < lr < float("inf"), "a number above 0")
    require("server_momentum", momentum, 0 <= momentum < 1, "from 0 to below 1")


def _check_second_momentum(second_momentum: float) -> None:
    """Refuse a second momentum that is out of its range."""
    require("server_second_momentum", second_momentum, 0 <= second_momentum < 1, "from 0 to below 1")
