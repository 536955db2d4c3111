"""Schedules: the factor on the learning rate, over the rounds of a run or over the optimiser's steps of a round.

At t = 0, 1, ... of a span of T, after `warmup` = W, with u = (t - W) / (T - W), at most 1, and e = lr_end / lr:

    warm-up     (t + 1) / (W + 1)                     where t < W; `LinearLR` with start_factor 1 / (W + 1)
    constant    1
    cosine      e + (1 - e) (1 + cos(pi u)) / 2       `CosineAnnealingLR` with T_max T - W and eta_min lr_end
    linear      1 + (e - 1) u                         `LinearLR` with end_factor e and total_iters T - W
    step        gamma^floor((t - W) / step_size)      `StepLR`

The names on the right are those of `torch.optim.lr_scheduler`, chained by `SequentialLR`. After its span a schedule
stays at its end: PyTorch's cosine would rise again.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from coterie.algorithms.local_options import LocalOptions
from coterie.core.errors import Mistake, require

Curve = Callable[[Tensor, Tensor], Tensor]
"""(t, T), [] each -> the factor on the learning rate []."""

Factor = Callable[[Tensor, Tensor, Tensor], Tensor]
"""(round from 1, step from 0, the round's number of steps), [] each -> the factor on the learning rate []."""

NEEDS_LENGTH = ("cosine", "linear")
"""The schedules that have an end."""


def factor_of_round(options: LocalOptions) -> Callable[[int], float] | None:
    """Return (round from 1) -> the factor on its learning rate, or None where the schedule is not over rounds.

    Raises:
        Mistake: an option is missing, contradicts another, or belongs to another schedule.
    """
    curve = _curve(options)
    if curve is None or options["schedule_over"] == "steps":
        return None
    length = options["schedule_length"]
    if options["schedule"] in NEEDS_LENGTH and length is None:
        name = options["schedule"]
        raise Mistake(
            f'it is missing; the schedule "{name}" ends after that many rounds, such as schedule_length = 100',
            key="schedule_length",
        )
    span = torch.tensor(float(length or 0), dtype=torch.float64)
    return lambda round: float(curve(torch.tensor(float(round - 1), dtype=torch.float64), span))


def factor_of_step(options: LocalOptions) -> Factor | None:
    """Return the factor on the learning rate of an optimiser's step, or None where it is the same in all of a round.

    Raises:
        Mistake: as in `factor_of_round`; or a function as schedule cannot be used.
    """
    schedule = options["schedule"]
    if callable(schedule):
        return _function_as_factor(schedule)
    curve, length = _curve(options), options["schedule_length"]
    if curve is None or options["schedule_over"] == "rounds":
        return None
    return lambda round, step, steps: curve(step, steps if length is None else torch.full_like(steps, length))


def _curve(options: LocalOptions) -> Curve | None:
    """Return the schedule as a curve; None for a constant rate without warm-up, and for a function."""
    name = options["schedule"]
    _refuse_others_keys(name, options)
    if callable(name) or (name == "constant" and not options["warmup"]):
        return None
    warmup, length, end = options["warmup"], options["schedule_length"], (options["lr_end"] or 0.0) / options["lr"]
    require("schedule_length", length, length is None or length > warmup, f"more than warmup = {warmup}")
    gamma, step_size = options["gamma"] or 0.1, options["step_size"] or 1

    def curve(t: Tensor, span: Tensor) -> Tensor:
        after = (t - warmup).clamp(min=0)
        u = (after / (span - warmup).clamp(min=1)).clamp(max=1)
        if name == "cosine":
            factor = end + (1 - end) * (1 + torch.cos(math.pi * u)) / 2
        elif name == "linear":
            factor = 1 + (end - 1) * u
        elif name == "step":
            factor = gamma ** torch.floor(after / step_size)
        else:
            factor = torch.ones_like(t)
        return torch.where(t < warmup, (t + 1) / (warmup + 1), factor) if warmup else factor

    return curve


def _refuse_others_keys(name: Any, options: LocalOptions) -> None:
    """Refuse an option that the schedule would ignore, and the lack of one that it needs."""
    chosen = "a function as schedule" if callable(name) else f'the schedule "{name}"'
    takers = {"schedule_length": NEEDS_LENGTH, "lr_end": NEEDS_LENGTH, "step_size": ("step",), "gamma": ("step",)}
    given: dict[str, Any] = dict(options)
    for key, names in takers.items():
        if given[key] is not None and name not in names:
            belongs = " and ".join(f'"{each}"' for each in names)
            raise Mistake(f"{chosen} does not take it; it belongs to {belongs}", key=key, value=given[key])
    if name == "step" and given["step_size"] is None:
        raise Mistake('the schedule "step" needs it, such as step_size = 10', key="step_size")
    if callable(name):
        for key, default in (("warmup", 0), ("schedule_over", "rounds")):
            require(key, given[key], given[key] == default, "left out with a function as schedule, which sees both")
    end = given["lr_end"]
    require("lr_end", end, end is None or end <= given["lr"], "at most lr")


def _function_as_factor(schedule: Callable[[Any, Any], Any]) -> Factor:
    """Return a function of the user's own as a factor; refuse one that cannot be used for many clients at once."""

    def factor(round: Tensor, step: Tensor, steps: Tensor) -> Tensor:
        return torch.as_tensor(schedule(round, step), dtype=step.dtype, device=step.device)

    one, steps = torch.ones(()), torch.arange(2.0)
    try:
        found = torch.func.vmap(lambda step: factor(one, step, step))(steps)
    except Exception as error:  # a function of the user's own may raise anything
        why = (str(error).splitlines() or [type(error).__name__])[0]
        raise Mistake(
            f"it cannot be called with a round and a step as tensors [] ({why}); compute with torch, and choose with "
            "torch.where instead of `if`",
            key="schedule",
            value=schedule,
        ) from error
    right = found.shape == (2,) and bool((found.isfinite() & (found >= 0)).all())
    require("schedule", schedule, right, "a function (round, step) -> one factor, 0 or more")
    return factor
