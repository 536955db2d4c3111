"""Statistics of BatchNorm layers: clients add them up, the server pools them, and they go back into buffers.

Client i sends, for each layer, the mean mu_i and the biased variance s_i of the N_i values per channel that passed the
layer in the round, as {"mean", "var", "number"} with an entry per layer in each. The server pools them in three stages.
Each stage uses the aggregator A that the user chose, over all layers at once:

    mu = A(mu_i)      within = A(s_i)      between = A((mu_i - mu)^2)      N = sum_i N_i
    s  = (within + between) N / (N - 1)                                               # in `move`

With the mean, weighted by examples, mu and s are the mean and the unbiased variance of the union of all batches. With a
robust rule they are what that rule makes of three sets of vectors. Whatever else a client sends, such as slopes
(`coterie.algorithms.batchnorm.slopes`), is reduced by A alone.

Legend: C channels.
"""

from __future__ import annotations

from collections.abc import Iterable

import torch
from torch import Tensor

from coterie.core import tree
from coterie.core.aggregators import Aggregator, Combine, Composite, OneMean
from coterie.core.algorithm import Logs
from coterie.core.normaliser import Moments, statistic_names
from coterie.core.task import Task
from coterie.core.tree import Tree

EPS = 1e-5
"""Added to variances in `layer_distances` alone; layers have an eps of their own."""

MOMENTS = ("mean", "var", "number")

NOISE_FLOOR = 0.1
"""Of variances that come with noise, how small they may become in one round, as a share of V."""


def running_statistics(buffers: Tree, layers: Iterable[str]) -> Tree:
    """Return the layers' running statistics as {"mean", "var"}, each layer -> [C]."""
    names = {layer: statistic_names(layer) for layer in layers}
    return {
        "mean": {layer: buffers[mean] for layer, (mean, _, _) in names.items()},
        "var": {layer: buffers[var] for layer, (_, var, _) in names.items()},
    }


def step_statistics(buffers: Tree, layers: Iterable[str]) -> Tree:
    """Return what the layers reported in one step as {"mean", "var", "number"}.

    Args:
        buffers: those that a forward with a normaliser returned; see `coterie.core.task.Task.apply_with`.
        layers: names of BatchNorm layers.
    """
    layers = list(layers)
    found = running_statistics(buffers, layers)
    numbers = {layer: buffers[statistic_names(layer)[2]] for layer in layers}
    return {**found, "number": {layer: n.to(found["mean"][layer].dtype) for layer, n in numbers.items()}}


def initial_statistics(sent: Tree) -> Tree:
    """Return a client's statistics before its first step, of no values, given the "statistics" that the server sent.

    It is {"mean", "var", "number"} with the number 0 and (M, V) as mean and variance, so that a client none of whose
    values pass a layer moves nothing there. Other parts of what was sent become zeros.
    """
    other = tree.zeros_like({part: sent[part] for part in sent if part not in MOMENTS})
    number = tree.map(lambda m: m.new_zeros(()), sent["mean"])
    return {"mean": sent["mean"], "var": sent["var"], "number": number, **other}


def merge(before: Tree, more: Tree) -> Tree:
    """Return the statistics of all steps so far together with those of one more step."""
    layers = {
        layer: Moments(before["mean"][layer], before["var"][layer], before["number"][layer]).merge(
            Moments(more["mean"][layer], more["var"][layer], more["number"][layer])
        )
        for layer in before["number"]
    }
    return {part: {layer: getattr(m, part) for layer, m in layers.items()} for part in MOMENTS}


def observe(carry: Tree, buffers: Tree, logs: Logs, layers: Iterable[str]) -> tuple[Tree, Tree, Logs]:
    """Return the buffers with (M, V) restored, the statistics with one step's added, and the logs with shifts.

    Args:
        carry: its "buffers" hold (M, V), its "seen" the statistics so far.
        buffers: those that the step's forward returned.
        logs: the step's.
        layers: names of BatchNorm layers.

    Returns:
        The step's buffers with (M, V) back in place, the statistics so far, and the logs with each layer's shift: the
        distance of this batch's statistics from (M, V).
    """
    layers = list(layers)
    running, new = running_statistics(carry["buffers"], layers), step_statistics(buffers, layers)
    shift = {f"shift.{layer}": d * logs["count"] for layer, d in layer_distances(new, running).items()}
    return fill(buffers, running), {**carry["seen"], **merge(carry["seen"], new)}, {**logs, **shift}


def fill(buffers: Tree, statistics: Tree) -> Tree:
    """Return the buffers with {"mean", "var"} as the layers' running statistics, as a forward needs them."""
    changes: Tree = {}
    for layer, mean in statistics["mean"].items():
        names = statistic_names(layer)
        count = torch.zeros((), dtype=torch.int64, device=mean.device)
        changes |= dict(zip(names, (mean, statistics["var"][layer], count), strict=True))
    return {**buffers, **changes}


def other_buffers(buffers: Tree, layers: Iterable[str]) -> Tree:
    """Return the buffers that are not statistics of these layers."""
    names = {name for layer in layers for name in statistic_names(layer)}
    return {name: b for name, b in buffers.items() if name not in names}


def noise_floor(task: Task) -> float:
    """Return the share of V below which new variances count as no smaller: above 0 where they come with noise."""
    return 0.0 if task.gradient_rule is None else NOISE_FLOOR


def move(buffers: Tree, pooled: Tree, share: float, floor: float = 0.0) -> Tree:
    """Return the buffers with M <- (1 - share) M + share mu and V <- (1 - share) V + share max(s, floor V).

    So V stays positive, unless share = 1 and floor = 0. A single value has no variance and leaves V unchanged. A layer
    that no value passed stays unchanged.
    """
    changes: Tree = {}
    for layer, n in pooled["number"].items():
        mean, var, count = statistic_names(layer)
        s = (pooled["within"][layer] + pooled["between"][layer]) * (n / (n - 1).clamp(min=1))
        least = floor * buffers[var] if floor else 0
        new = torch.lerp(buffers[var], s.clamp(min=least), share)
        changes[mean] = torch.where(n > 0, torch.lerp(buffers[mean], pooled["mean"][layer], share), buffers[mean])
        changes[var] = torch.where(n > 1, new, buffers[var])
        changes[count] = buffers[count] + (n > 0)
    return {**buffers, **changes}


def encode_as_moved(seen: Tree, running: Tree, share: float) -> Tree:
    """Return (1 - share) M + share mu and (1 - share) V + share s in the places of a client's mean and variance."""
    moved = {
        part: tree.map(lambda old, new: torch.lerp(old, new, share), running[part], seen[part]) for part in running
    }
    return {**seen, **moved}


def decode_moved(pooled: Tree, running: Tree, share: float) -> Tree:
    """Undo `encode_as_moved` in pooled statistics: return them as if clients had sent mean and variance."""

    def undo_move(moved: Tree, old: Tree) -> Tree:
        """Return the values that the `old` ones were moved towards by `share`."""
        return tree.map(lambda m, o: o + (m - o) / share, moved, old)

    mean, within = undo_move(pooled["mean"], running["mean"]), undo_move(pooled["within"], running["var"])
    return {**pooled, "mean": mean, "within": within, "between": tree.scale(pooled["between"], share**-2)}


def three_stages(chosen: Aggregator) -> Aggregator:
    """Return the aggregator of the part "statistics": three stages, each done by the chosen aggregator.

    A step before it that is made for differences, such as clipping at a given length, is left out, since statistics are
    not differences. A negative N_i counts as 0, so that a lie leaves N / (N - 1) between 1 and its value for the
    others' values alone.
    """

    def rule(updates: list[Tree], combine: Combine) -> Tree:
        """Combine the means, then the variances, then the squared distances from the mean; add up the numbers."""
        mean = combine([u["mean"] for u in updates])
        within = combine([u["var"] for u in updates])
        between = combine([tree.map(lambda m, mu: (m - mu) ** 2, u["mean"], mean) for u in updates])
        numbers = [tree.map(lambda n: n.clamp(min=0), u["number"]) for u in updates]
        number = tree.map(lambda *n: torch.stack(n).sum(), *numbers)
        other = {part: combine([u[part] for u in updates]) for part in updates[0] if part not in MOMENTS}
        return {"mean": mean, "within": within, "between": between, "number": number, **other}

    return Composite(rule, chosen.for_statistics(), _THREE_STAGES_IN_ONE)


NUMBER_UNIT = 2.0**10
"""Numbers of values travel in this unit in a sum of means, since they are much larger than the moments."""


def _moments_to_add(statistics: Tree, weight: float) -> Tree:
    """Return what a client's statistics add to one mean: the square of its mean too, and its number without weight."""
    own = tree.map(lambda n: n.clamp(min=0).double() / (NUMBER_UNIT * weight), statistics["number"])
    return {**statistics, "square": tree.map(lambda m: m.double() ** 2, statistics["mean"]), "number": own}


def _moments_of_mean(mean: Tree, weight: float) -> Tree:
    """Return the aggregate of `three_stages` from one mean: the mean of (m_i - m)^2 is that of m_i^2, minus m^2."""
    between = tree.map(lambda square, m: (square - m.double() ** 2).clamp(min=0), mean["square"], mean["mean"])
    number = tree.map(lambda n: n * (weight * NUMBER_UNIT), mean["number"])
    other = {part: mean[part] for part in mean if part not in (*MOMENTS, "square")}
    return {"mean": mean["mean"], "within": mean["var"], "between": between, "number": number, **other}


_THREE_STAGES_IN_ONE = OneMean(_moments_to_add, _moments_of_mean)


def layer_distances(a: Tree, b: Tree) -> dict[str, Tensor]:
    """Return how far two sets of {"mean", "var"} lie apart in each layer, [] each.

    sqrt(mean over channels of ((mu_a - mu_b)^2 + (sd_a - sd_b)^2) / sd_b^2): the Wasserstein distance of normal
    distributions with these statistics, in standard deviations of b.
    """
    return {
        layer: _distance(a["mean"][layer], a["var"][layer], b["mean"][layer], b["var"][layer]) for layer in b["mean"]
    }


def _distance(mean: Tensor, var: Tensor, to_mean: Tensor, to_var: Tensor) -> Tensor:
    """Return `layer_distances` for one layer []."""
    sd, to_sd = (var + EPS).sqrt(), (to_var + EPS).sqrt()
    return ((((mean - to_mean) / to_sd) ** 2 + (sd / to_sd - 1) ** 2).mean()).sqrt()
