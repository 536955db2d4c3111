"""Gradients that hide each example: DP-SGD, as a task's gradient rule.

    for each example e of a Poisson batch   g_e <- grad of its own loss;  g_e <- g_e min(1, C / |g_e|)
    gradient                                (sum_e g_e + z C N(0, 1)) / B        # B is the expected batch size

|g_e| is the norm of the example's whole gradient, over all parameters together. A gradient that is not finite counts as
0. The sum is divided by the batch's expected size, not by its real one, which would say how many examples were drawn. A
batch without an example gives noise alone.

BatchNorm layers that normalise by given statistics (M, V) let no example touch another's gradient, so the rule above
holds for them unchanged. What such layers report of an example is a vector of its own, of two numbers per channel,

    u_e = (mean_e - M) / sd,    s_e = (mean_e((x - M)^2) - V) / sd^2,    sd^2 = V + EPS

the means being over the example's own values. It is 0 where the example agrees with (M, V). In each layer it is clipped
to c sqrt(2 channels), so all layers' vectors together have at most the norm C_s = c sqrt(2 channels of all layers).
Their sum gets noise too. The statistics that the layers then report are those that these means stand for.

Gradient and statistics are one query. With the noise z / sqrt(1 - a) of the gradient and z / sqrt(a) of the statistics,
in units of C and of C_s, an example moves the two together by at most 1 / z standard deviations of their noise: as far
as in DP-SGD with z. So each step of either kind is one Gaussian mechanism of the noise multiplier z on a Poisson
sample, and the account needs to know nothing else. A step that only measures statistics spends all of z on them.

Departure from the paper: batches are Poisson samples of a fixed number of steps, as its analysis assumes.

Abadi, Chu, Goodfellow, McMahan, Mironov, Talwar, Zhang: Deep Learning with Differential Privacy, CCS 2016, Algorithm 1.

Legend: m examples at a time, C channels of a layer, P numbers of noise.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import NamedTuple

import torch
from torch import Tensor

from coterie.core import rng, tree
from coterie.core.errors import require
from coterie.core.normaliser import statistic_names
from coterie.core.task import Batch, Task, gradient_by_func, mean_of_sums
from coterie.core.tree import Tree

EPS = 1e-5
"""Added to V where statistics are measured in standard deviations."""

LEAST_BOUND = 1e-12
"""In float32 the square of a number below 1e-22 is 0, so norms far below this bound could not be measured."""

GRADIENT_BYTES = 2**27
"""How much memory the gradients of the examples that are computed at a time may take."""


class Sums(NamedTuple):
    """Sums over the real examples of a batch, each example's part clipped."""

    gradient: Tree
    reports: dict[str, Tensor]  # layer -> [2 C], the sums of u_e and of s_e
    numbers: dict[str, Tensor]  # layer -> [], how many values an example has per channel


@dataclass(frozen=True)
class ExampleLevel:
    """The gradient rule; see `coterie.core.task.GradientRule`.

    Attributes:
        clip_norm: C, the largest norm of an example's gradient.
        noise_multiplier: z.
        numbers: P, how many standard normal numbers a step takes: one for each parameter, and two for each channel of
            a BatchNorm layer.
        statistics_clip: c, how far an example's statistics may lie from (M, V), in standard deviations, as the root
            mean square over a layer's channels.
        statistics_share: a, the share of the query that statistics get in a step that trains.

    Raises:
        Mistake: a value is out of its range.
    """

    clip_norm: float
    noise_multiplier: float
    numbers: int
    statistics_clip: float = 1.0
    statistics_share: float = 0.1

    def __post_init__(self) -> None:
        """Refuse values that are out of range."""
        z = self.noise_multiplier
        require("noise_multiplier", z, 0 < z < float("inf"), "a number above 0")
        for name in ("clip_norm", "statistics_clip"):
            value = getattr(self, name)
            require(name, value, LEAST_BOUND <= value < float("inf"), f"{LEAST_BOUND:g} or more")
        share = self.statistics_share
        require("statistics_share", share, 0 < share < 1, "above 0 and below 1")

    def __call__(self, task: Task, params: Tree, buffers: Tree, batch: Batch) -> tuple[Tree, Tree, dict[str, Tensor]]:
        """Return the noised gradient, the buffers with noised statistics, and logs.

        The logs are "count", the expected number of examples, and "loss", which is 0: it would tell about examples.
        Other buffers than the statistics stay as they are.

        Raises:
            RuntimeError: the batch is not a Poisson batch that comes with its noise.
        """
        size, noise = _require_noise(batch)
        sums = self._sums(task, params, buffers, batch, trains=True)
        shares = (1 - self.statistics_share, self.statistics_share) if sums.reports else (1.0, 0.0)
        sigma = self.noise_multiplier * self.clip_norm / math.sqrt(shares[0])
        gradient, used = _add_noise(sums.gradient, noise, sigma)
        gradient = {name: g * task.lr_scale[name] if name in task.lr_scale else g for name, g in gradient.items()}
        after = self._statistics(sums, buffers, size, noise[used:], shares[1]) if sums.reports else buffers
        return tree.scale(gradient, 1 / _or_one(size)), after, {"loss": torch.zeros_like(size), "count": size}

    def measure(self, task: Task, params: Tree, buffers: Tree, batch: Batch) -> tuple[Tree, dict[str, Tensor]]:
        """Return the buffers with noised statistics of a step that takes no gradient, and logs as above.

        Raises:
            RuntimeError: the batch is not a Poisson batch that comes with its noise.
        """
        size, noise = _require_noise(batch)
        sums = self._sums(task, params, buffers, batch, trains=False)
        after = self._statistics(sums, buffers, size, noise, 1.0)
        return after, {"loss": torch.zeros_like(size), "count": size}

    def _sums(self, task: Task, params: Tree, buffers: Tree, batch: Batch, trains: bool) -> Sums:
        """Return the sums of the examples' clipped gradients and reports, a few examples at a time."""
        size = sum(p.numel() * p.element_size() for p in params.values())
        total: Sums | None = None
        every = torch.arange(len(batch.x), device=batch.x.device)
        for rows in torch.split(every, max(1, GRADIENT_BYTES // max(1, size))):
            grads, after = example_gradients(task, params, buffers, batch, rows, trains)
            part = self._clip_all(task, grads, after, buffers, None if batch.mask is None else batch.mask[rows])
            total = part if total is None else _add(total, part)
        assert total is not None, "an engine fills an empty batch up"
        return total

    def _clip_all(self, task: Task, grads: Tree, after: Tree, buffers: Tree, mask: Tensor | None) -> Sums:
        """Return the sums over m examples of their gradients and reports, clipped."""
        reports, numbers = {}, {}
        for layer in task.batch_norms:
            report, number = _report(layer, after, buffers)  # [m, 2 C]
            bound = self.statistics_clip * math.sqrt(report.shape[1])
            reports[layer] = sum_clipped({"": report}, bound, mask)[""]
            numbers[layer] = number
        return Sums(sum_clipped(grads, self.clip_norm, mask), reports, numbers)

    def _statistics(self, sums: Sums, buffers: Tree, size: Tensor, noise: Tensor, share: float) -> Tree:
        """Return the buffers in which BatchNorm layers report the statistics that the noised sums stand for."""
        bound = self.statistics_clip * math.sqrt(sum(len(report) for report in sums.reports.values()))  # C_s
        noised, _ = _add_noise(sums.reports, noise, self.noise_multiplier * bound / math.sqrt(share))
        changes: Tree = {}
        for layer, report in noised.items():
            mean, var, number = statistic_names(layer)
            u, s = (report / _or_one(size)).chunk(2)
            square = buffers[var] + EPS
            shift = u * square.sqrt()
            count = (size * sums.numbers[layer].to(size.dtype)).to(buffers[number].dtype)
            changes |= {mean: buffers[mean] + shift, var: buffers[var] + s * square - shift * shift, number: count}
        return {**buffers, **changes}


def example_gradients(
    task: Task, params: Tree, buffers: Tree, batch: Batch, rows: Tensor, trains: bool = True
) -> tuple[Tree, Tree]:
    """Return the gradient of each example's own loss, and the buffers after its own forward, [m, ...] each.

    An example's loss is the mean over what counts in it, such as its tokens. Each example gets a key of its own, so
    that dropout and augmentation draw for it alone.

    Args:
        task, params, buffers, batch: as in `Task.gradient`.
        rows: [m] int64, places in the batch.
        trains: whether gradients are wanted; otherwise there are none.
    """

    def of_one(x: Tensor, y: Tensor | None, key: Tensor) -> Callable[[Tree], tuple[Tensor, Tree]]:
        def objective(p: Tree) -> tuple[Tensor, Tree]:
            outputs, after = task.apply(p, buffers, x[None], None, key)
            sums, counts = task.loss(outputs, None if y is None else y[None])
            return mean_of_sums(sums.sum(), counts.sum()), after

        return objective

    def by_func(x: Tensor, y: Tensor | None, key: Tensor) -> tuple[Tree, Tree]:
        if not trains:
            return {}, of_one(x, y, key)(params)[1]
        return gradient_by_func(of_one(x, y, key), params)

    def by_tape(x: Tensor, y: Tensor | None, key: Tensor) -> tuple[Tree, Tree]:
        return task.autodiff(of_one(x, y, key), params) if trains else ({}, of_one(x, y, key)(params)[1])

    x, y, keys = batch.x[rows], None if batch.y is None else batch.y[rows], rng.fold(batch.key, rows)
    if task.unbatchable is None:
        dims = (0, None if y is None else 0, 0)
        both: tuple[Tree, Tree] = torch.func.vmap(by_func, in_dims=dims, randomness="different")(x, y, keys)
        return both
    each = [by_tape(x[i], None if y is None else y[i], keys[i]) for i in range(len(x))]
    return tree.stack([grads for grads, _ in each]), tree.stack([after for _, after in each])


def _add(a: Sums, b: Sums) -> Sums:
    return Sums(tree.add(a.gradient, b.gradient), tree.add(a.reports, b.reports), a.numbers)


def sum_clipped(vectors: Tree, bound: float, mask: Tensor | None) -> Tree:
    """Return sum_e v_e min(1, bound / |v_e|) over the real examples, where |v_e| is over all leaves together.

    A vector that is not finite counts as 0.

    Args:
        vectors: leaves [m, ...].
        bound: the largest norm of an example's vector.
        mask: [m] bool, which examples are real; None: all are.

    >>> sum_clipped({"w": torch.tensor([[3.0, 4.0]])}, 1.0, None)["w"]
    tensor([0.6000, 0.8000])
    """
    if not vectors:
        return {}
    flat = {name: v.flatten(1) for name, v in vectors.items()}
    norms = torch.stack([v.square().sum(1) for v in flat.values()]).sum(0).sqrt()  # [m]
    counts = norms.isfinite() if mask is None else norms.isfinite() & mask
    factors = torch.where(counts, bound / norms.clamp(min=bound), 0.0)  # [m]
    return {
        name: (factors @ torch.where(counts[:, None], v, 0.0)).reshape(vectors[name].shape[1:])
        for name, v in flat.items()
    }


def _report(layer: str, after: Tree, buffers: Tree) -> tuple[Tensor, Tensor]:
    """Return u_e and s_e of m examples [m, 2 C], and how many values an example has per channel []."""
    mean, var, number = statistic_names(layer)
    square = buffers[var] + EPS
    shift = after[mean] - buffers[mean]  # [m, C]
    return torch.cat([shift / square.sqrt(), (after[var] + shift * shift - buffers[var]) / square], 1), after[number][0]


def _add_noise(sums: Tree, noise: Tensor, sigma: float) -> tuple[Tree, int]:
    """Return the sums with sigma times the first standard normal numbers added, and how many were used."""
    parts = iter(torch.split(noise[: _count(sums)], [x.numel() for x in sums.values()]))
    return {name: x + sigma * next(parts).reshape(x.shape) for name, x in sums.items()}, _count(sums)


def _count(leaves: Tree) -> int:
    return sum(x.numel() for x in tree.leaves(leaves))


def _require_noise(batch: Batch) -> tuple[Tensor, Tensor]:
    """Return the expected size [] and the noise [P] of a Poisson batch; see `ExampleLevel`."""
    if batch.expected is None or batch.noise is None:
        raise RuntimeError("a step that must hide its examples got a batch without noise")
    return batch.expected, batch.noise


def _or_one(size: Tensor) -> Tensor:
    """Return the expected size, and 1 after a client's last step, whose result is thrown away."""
    return torch.where(size > 0, size, 1.0)


def noise_numbers(task: Task, weights: Tree) -> int:
    """Return P for a task with these weights: a number for each parameter, two for each channel of BatchNorm layers."""
    channels: int = sum(weights["buffers"][statistic_names(layer)[0]].numel() for layer in task.batch_norms)
    return _count(weights["params"]) + 2 * channels
