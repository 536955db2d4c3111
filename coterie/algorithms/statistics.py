"""Statistics of BatchNorm layers on their way: added up by a client, pooled by the server, put back into buffers.

Sent by client i, for each layer and in one tree each: the mean mu_i and the biased variance s_i of the N_i values per
channel that passed it in the round. The server pools them in three stages, each done by the aggregator that the user
chose, over all layers at once:

    mu = A(mu_i)      within = A(s_i)      between = A((mu_i - mu)^2)      N = sum_i N_i
    s  = (within + between) N / (N - 1)                                               # in `moved`

With the mean, weighted by examples, mu and s are the mean and the unbiased variance of the union of all batches. With a
robust rule they are what it makes of three sets of vectors. Slopes, where they are sent (`coterie.algorithms.slopes`),
are a fourth.

Legend: C channels.
"""

from __future__ import annotations

from collections.abc import Iterable

import torch
from torch import Tensor

from coterie.algorithms.slopes import PART, part
from coterie.core import tree
from coterie.core.aggregators import Aggregator, Combine, Composite
from coterie.core.algorithm import Logs
from coterie.core.tree import Tree
from coterie.models.functional import statistics_of
from coterie.models.moments import Moments

EPS = 1e-5
"""Added to variances in `distance` alone; layers have an eps of their own."""


def given(buffers: Tree, layers: Iterable[str]) -> Tree:
    """{"mean", "var"}, each layer -> [C]: what the layers' running statistics are."""
    names = {layer: statistics_of(layer) for layer in layers}
    return {
        "mean": {layer: buffers[mean] for layer, (mean, _, _) in names.items()},
        "var": {layer: buffers[var] for layer, (_, var, _) in names.items()},
    }


def seen(buffers: Tree, layers: Iterable[str]) -> Tree:
    """{"mean", "var", "number"}: what the layers saw, from the buffers that `Task.shared`'s forward gave."""
    layers = list(layers)
    found = given(buffers, layers)
    numbers = {layer: buffers[statistics_of(layer)[2]] for layer in layers}
    return {**found, "number": {layer: n.to(found["mean"][layer].dtype) for layer, n in numbers.items()}}


def nothing_yet(statistics: Tree) -> Tree:
    """{"mean", "var", "number"} of no values, which say (M, V) until there are some: a client whose steps all passed a
    layer by then moves nothing. Zeros for slopes, where they are shared.
    """
    zeros, number = tree.zeros_like(part(statistics)), tree.map(lambda m: m.new_zeros(()), statistics["mean"])
    return {"mean": statistics["mean"], "var": statistics["var"], "number": number, **zeros}


def added(before: Tree, more: Tree) -> Tree:
    """What was seen so far together with what one more step saw, pooled exactly."""
    layers = {
        layer: Moments(before["mean"][layer], before["var"][layer], before["number"][layer]).and_those_of(
            Moments(more["mean"][layer], more["var"][layer], more["number"][layer])
        )
        for layer in before["number"]
    }
    return {name: {layer: getattr(m, name) for layer, m in layers.items()} for name in ("mean", "var", "number")}


def observed(carry: Tree, buffers: Tree, logs: Logs, layers: Iterable[str]) -> tuple[Tree, Tree, Logs]:
    """After a forward: the buffers that it gave with (M, V) back in place, all that was seen in the round so far, and
    the logs with each layer's shift, the distance of this batch's statistics from (M, V).
    """
    layers = list(layers)
    ours, new = given(carry["buffers"], layers), seen(buffers, layers)
    shift = {f"shift.{layer}": d * logs["count"] for layer, d in distance(new, ours).items()}
    return filled(buffers, ours), {**carry["seen"], **added(carry["seen"], new)}, {**logs, **shift}


def filled(buffers: Tree, statistics: Tree) -> Tree:
    """The buffers with {"mean", "var"} in the layers' places, as a forward needs them."""
    changes: Tree = {}
    for layer, mean in statistics["mean"].items():
        names = statistics_of(layer)
        count = torch.zeros((), dtype=torch.int64, device=mean.device)
        changes |= dict(zip(names, (mean, statistics["var"][layer], count), strict=True))
    return {**buffers, **changes}


def others(buffers: Tree, layers: Iterable[str]) -> Tree:
    """The buffers that are no statistics of these layers."""
    ours = {name for layer in layers for name in statistics_of(layer)}
    return {name: b for name, b in buffers.items() if name not in ours}


def moved(buffers: Tree, pooled: Tree, share: float) -> Tree:
    """The buffers with M <- (1 - share) M + share mu and V <- (1 - share) V + share max(s, 0): V stays positive.

    A single value has no variance and leaves V as it is; a layer that no value passed stays as it is.
    """
    changes: Tree = {}
    for layer, n in pooled["number"].items():
        mean, var, count = statistics_of(layer)
        s = (pooled["within"][layer] + pooled["between"][layer]) * (n / (n - 1).clamp(min=1))
        new = torch.lerp(buffers[var], s.clamp(min=0), share)
        changes[mean] = torch.where(n > 0, torch.lerp(buffers[mean], pooled["mean"][layer], share), buffers[mean])
        changes[var] = torch.where(n > 1, new, buffers[var])
        changes[count] = buffers[count] + (n > 0)
    return {**buffers, **changes}


def as_moved(seen: Tree, given: Tree, share: float) -> Tree:
    """What was seen as (M, V) moved towards it: (1 - share) M + share mu and (1 - share) V + share s."""
    moved = {name: tree.map(lambda old, new: torch.lerp(old, new, share), given[name], seen[name]) for name in given}
    return {**seen, **moved}


def unmoved(pooled: Tree, given: Tree, share: float) -> Tree:
    """What was pooled of statistics in that form, as if clients had sent what they saw."""

    def back(moved: Tree, old: Tree) -> Tree:
        return tree.map(lambda m, o: o + (m - o) / share, moved, old)

    mean, within = back(pooled["mean"], given["mean"]), back(pooled["within"], given["var"])
    return {**pooled, "mean": mean, "within": within, "between": tree.scale(pooled["between"], share**-2)}


def pooling(chosen: Aggregator) -> Aggregator:
    """The three stages with the chosen aggregator inside.

    A step before it that is made for differences, such as clipping at a given length, is left out: statistics are none.
    What a client says of N_i is taken to be 0 at least; a lie then leaves N / (N - 1) between 1 and what the others'
    values alone give.
    """

    def rule(updates: list[Tree], combine: Combine) -> Tree:
        mean = combine([u["mean"] for u in updates])
        within = combine([u["var"] for u in updates])
        between = combine([tree.map(lambda m, mu: (m - mu) ** 2, u["mean"], mean) for u in updates])
        said = [tree.map(lambda n: n.clamp(min=0), u["number"]) for u in updates]
        number = tree.map(lambda *n: torch.stack(n).sum(), *said)
        slopes = {PART: combine([u[PART] for u in updates])} if PART in updates[0] else {}
        return {"mean": mean, "within": within, "between": between, "number": number, **slopes}

    return Composite(rule, chosen.for_statistics())


def distance(a: Tree, b: Tree) -> dict[str, Tensor]:
    """How far two sets of {"mean", "var"} lie apart in each layer, [] each.

    sqrt(mean over channels of ((mu_a - mu_b)^2 + (sd_a - sd_b)^2) / sd_b^2): the Wasserstein distance of normal
    distributions with these statistics, in standard deviations of b.
    """
    return {
        layer: _distance(a["mean"][layer], a["var"][layer], b["mean"][layer], b["var"][layer]) for layer in b["mean"]
    }


def _distance(mean: Tensor, var: Tensor, to_mean: Tensor, to_var: Tensor) -> Tensor:
    sd, to_sd = (var + EPS).sqrt(), (to_var + EPS).sqrt()
    return ((((mean - to_mean) / to_sd) ** 2 + (sd / to_sd - 1) ** 2).mean()).sqrt()
