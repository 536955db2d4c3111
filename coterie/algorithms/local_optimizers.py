"""The optimisers of local training: those of `torch.optim`, by its names and conventions, as pure functions.

    clip       g <- g min(1, clip_norm / |g|)                first, over all parameters together
    decay      g <- g + weight_decay w                       adamw instead: w <- w - lr weight_decay w
    sgd        see `coterie.algorithms.optimizers`
    adam       m <- beta1 m + (1 - beta1) g,  v <- beta2 v + (1 - beta2) g^2
               w <- w - lr (m / (1 - beta1^t)) / (sqrt(v / (1 - beta2^t)) + eps)     amsgrad: the largest v so far
    adagrad    v <- v + g^2                                  w <- w - lr g / (sqrt(v) + eps)
    rmsprop    v <- alpha v + (1 - alpha) g^2                w <- w - lr u,  u <- momentum u + g / (sqrt(v) + eps)
               centered: v - a^2 in the place of v, with a <- alpha a + (1 - alpha) g

t counts an optimiser's steps, from 1. The optimisers of the server follow Reddi et al. instead, who correct no bias.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import torch
from torch import Tensor

from coterie.algorithms.local_options import LocalOptions
from coterie.algorithms.optimizers import Optimizer, clip_to_norm, sgd, zero_of
from coterie.core import tree
from coterie.core.errors import Mistake, require
from coterie.core.options import options_of
from coterie.core.tree import Tree

OWN: Mapping[str, Mapping[str, Any]] = {
    "sgd": {"momentum": 0.0, "dampening": 0.0, "nesterov": False},
    "adam": {"betas": [0.9, 0.999], "eps": 1e-8, "amsgrad": False},
    "adamw": {"betas": [0.9, 0.999], "eps": 1e-8, "amsgrad": False},
    "adagrad": {"eps": 1e-10, "initial_accumulator_value": 0.0},
    "rmsprop": {"momentum": 0.0, "alpha": 0.99, "eps": 1e-8, "centered": False},
}
"""The keys that not all optimisers take, with PyTorch's defaults."""

Direction = Callable[[Tree, Tree, Tree], tuple[Tree, Tree]]
"""(params, gradient, state) -> what lr times is taken from the parameters, and the new state."""


def local_optimizer(options: LocalOptions) -> Optimizer:
    """Return the optimiser that the options choose.

    Args:
        options: complete, each in its range.

    Raises:
        Mistake: the optimiser does not take an option, or two of them contradict one another.
    """
    name = options["optimizer"]
    _refuse_others_keys(name, options)
    given = {key: options.get(key) for key in OWN[name]}
    own: dict[str, Any] = {key: OWN[name][key] if value is None else value for key, value in given.items()}
    shared: dict[str, Any] = {"weight_decay": options["weight_decay"], "clip_norm": options["clip_norm"]}
    if name == "sgd":
        _check_momentum(own)
        return sgd(**own, **shared)
    if name in ("adam", "adamw"):
        require("betas", own["betas"], len(own["betas"]) == 2, "two numbers, such as [0.9, 0.999]")
        decoupled = name == "adamw"
        allowed = 'above 0 with adamw, such as 0.01, PyTorch\'s own; without it, choose optimizer = "adam"'
        require("weight_decay", options["weight_decay"], not decoupled or options["weight_decay"] > 0, allowed)
        return torch_adam(**own, **shared, decoupled=decoupled)
    return torch_adagrad(**own, **shared) if name == "adagrad" else torch_rmsprop(**own, **shared)


def _refuse_others_keys(name: str, options: LocalOptions) -> None:
    """Refuse an option, other than its default, that belongs to other optimisers."""
    known = options_of(LocalOptions)
    for key in dict.fromkeys(key for keys in OWN.values() for key in keys):
        value = options.get(key)
        if key not in OWN[name] and value != known[key].default:
            takers = " and ".join(f'"{other}"' for other, keys in OWN.items() if key in keys)
            raise Mistake(f'the optimizer "{name}" does not take it; it belongs to {takers}', key=key, value=value)


def _check_momentum(own: Mapping[str, Any]) -> None:
    """Refuse what would change nothing, or what PyTorch refuses."""
    momentum, dampening, nesterov = own["momentum"], own["dampening"], own["nesterov"]
    require("dampening", dampening, momentum > 0 or not dampening, "0 where momentum = 0, which leaves nothing to damp")
    require("nesterov", nesterov, not nesterov or momentum > 0, "false where momentum = 0")
    require("dampening", dampening, not (nesterov and dampening), "0 with nesterov = true")


def torch_adam(
    betas: list[float],
    eps: float,
    amsgrad: bool = False,
    weight_decay: float = 0.0,
    clip_norm: float | None = None,
    decoupled: bool = False,
) -> Optimizer:
    """Return `torch.optim.Adam`, or with `decoupled` weight decay `torch.optim.AdamW`."""
    beta1, beta2 = betas

    def init(params: Tree) -> Tree:
        names = ("exp_avg", "exp_avg_sq", *(["max_exp_avg_sq"] if amsgrad else []))
        return {"step": zero_of(params), **{name: tree.zeros_like(params) for name in names}}

    def direction(params: Tree, gradient: Tree, state: Tree) -> tuple[Tree, Tree]:
        t = state["step"] + 1
        m = tree.map(lambda m, g: beta1 * m + (1 - beta1) * g, state["exp_avg"], gradient)
        v = tree.map(lambda v, g: beta2 * v + (1 - beta2) * (g * g), state["exp_avg_sq"], gradient)
        after, scale = {"step": t, "exp_avg": m, "exp_avg_sq": v}, v
        if amsgrad:
            scale = tree.map(torch.maximum, state["max_exp_avg_sq"], v)
            after["max_exp_avg_sq"] = scale
        bias1, bias2 = 1 - beta1**t, (1 - beta2**t).sqrt()
        return tree.map(lambda m, v: m / bias1 / (v.sqrt() / bias2 + eps), m, scale), after

    return _optimizer(init, direction, weight_decay, clip_norm, decoupled)


def torch_adagrad(
    eps: float, initial_accumulator_value: float = 0.0, weight_decay: float = 0.0, clip_norm: float | None = None
) -> Optimizer:
    """Return `torch.optim.Adagrad`."""

    def init(params: Tree) -> Tree:
        return {"sum": tree.map(lambda w: torch.full_like(w, initial_accumulator_value), params)}

    def direction(params: Tree, gradient: Tree, state: Tree) -> tuple[Tree, Tree]:
        v = tree.map(lambda v, g: v + g * g, state["sum"], gradient)
        return tree.map(lambda g, v: g / (v.sqrt() + eps), gradient, v), {"sum": v}

    return _optimizer(init, direction, weight_decay, clip_norm)


def torch_rmsprop(
    alpha: float,
    eps: float,
    momentum: float = 0.0,
    centered: bool = False,
    weight_decay: float = 0.0,
    clip_norm: float | None = None,
) -> Optimizer:
    """Return `torch.optim.RMSprop`."""
    names = ("square_avg", *(["grad_avg"] if centered else []), *(["momentum"] if momentum else []))

    def init(params: Tree) -> Tree:
        return {name: tree.zeros_like(params) for name in names}

    def direction(params: Tree, gradient: Tree, state: Tree) -> tuple[Tree, Tree]:
        v = tree.map(lambda v, g: alpha * v + (1 - alpha) * (g * g), state["square_avg"], gradient)
        after, spread = {"square_avg": v}, v
        if centered:
            a = tree.map(lambda a, g: a + (1 - alpha) * (g - a), state["grad_avg"], gradient)
            after["grad_avg"] = a
            spread = tree.map(lambda v, a: (v - a * a).clamp(min=0), v, a)  # rounding may take it below 0
        step = tree.map(lambda g, v: g / (v.sqrt() + eps), gradient, spread)
        if momentum:
            step = tree.add(step, state["momentum"], momentum)
            after["momentum"] = step
        return step, after

    return _optimizer(init, direction, weight_decay, clip_norm)


def _optimizer(
    init: Callable[[Tree], Tree],
    direction: Direction,
    weight_decay: float,
    clip_norm: float | None,
    decoupled: bool = False,
) -> Optimizer:
    """Return the optimiser that clips the gradient, decays weights and then steps along `direction`."""

    def apply(params: Tree, gradient: Tree, state: Tree, rate: float | Tensor | None = None) -> tuple[Tree, Tree]:
        lr = 1.0 if rate is None else rate
        if clip_norm is not None:
            gradient = clip_to_norm(gradient, clip_norm)
        if weight_decay and not decoupled:
            gradient = tree.add(gradient, params, weight_decay)
        step, after = direction(params, gradient, state)
        if decoupled:
            params = tree.scale(params, 1 - lr * weight_decay)
        return tree.add(params, step, -lr), after

    return Optimizer(init, apply)
