"""What single rounds are measured by.

theta is the server's model before a round and theta' after it; theta_i = theta - D_i is client i's, with D_i what it
sends, as the server understands it; p_i is its weight in the mean. Leaves that an update does not carry, such as the
statistics that FBN's clients are given, are the server's.

Legend: n clients of the round.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

import torch
from torch import Tensor

from coterie.core import tree
from coterie.core.tree import Tree
from coterie.loop.plan import Round
from coterie.probes import updates
from coterie.probes.curvature import curvature as top
from coterie.probes.remembering import LAST
from coterie.probes.simplex import least
from coterie.probes.surface import Surface

Measures = Mapping[str, Any]


@dataclass(frozen=True)
class Look:
    """A round as probes see it.

    Attributes:
        round: its record and states.
        differences: client -> {"params", "buffers"} of D_i, in the cohort's order; none where the round reached nobody,
            or no weights were sent.
        shares: p_i [n].
        surface: the loss on the probes' examples; None without any.
    """

    round: Round
    differences: Mapping[str, Tree]
    shares: Sequence[float]
    surface: Surface | None

    @property
    def params(self) -> list[Tree]:
        """D_i [n], parameters alone."""
        return [difference["params"] for difference in self.differences.values()]

    def model(self, state: Tree) -> Tree:
        """The server's model in a state."""
        return self.round.plan.personal(state, self.round.store, self.round.plan.ids[0])


def look(round: Round, surface: Surface | None) -> Look:
    """A round that has its updates, as probes see it."""
    assert round.updates is not None, "a probed round has its updates"
    sent = {client: update["delta"] for client, update in round.updates.items() if "delta" in update}
    device, kind = round.plan.engine.device, round.plan.algorithm.weights.get("delta", "one")
    here = {client: tree.map(lambda x: x.to(device), delta) for client, delta in sent.items()}  # a team's are elsewhere
    weights = [float(round.client_weights[client][kind]) for client in here]
    return Look(round, here, [weight / sum(weights) for weight in weights], surface)


def drift(seen: Look) -> Measures:
    """See `coterie.probes.updates.drift`."""
    return updates.drift(seen.params, seen.shares)


def diversity(seen: Look) -> Measures:
    """See `coterie.probes.updates.diversity`."""
    return {"diversity": updates.diversity(seen.params)}


def direction(seen: Look) -> Measures:
    """The cosine between this round's aggregated difference and that of the round before that had one; None in the
    first round. High where rounds go on in one direction, negative where they swing back and forth (Nguyen et al.).
    """
    return {"direction": updates.cosine(seen.round.before[LAST], seen.round.state[LAST])}


def travelled(seen: Look) -> Measures:
    """|theta' - w_0|: how far the server's parameters are from where the run began."""
    (start,) = seen.round.plan.initial.values()
    return {"travelled": updates.length(tree.sub(seen.model(seen.round.state)["params"], start["params"]))}


def gain(seen: Look) -> Measures:
    """What averaging adds to what clients have learnt, and what local training did to the model they were sent.

        local_accuracy  sum_i p_i accuracy(theta_i)
        gain            accuracy(theta') - local_accuracy
        local_change    local_accuracy - accuracy(theta)

    Their sum is how the global accuracy moved. theta' is the model that the server ends with, which for FedAvg is the
    mean of the theta_i. Members of a team share the models. Collective.

    After Chen et al. 2023, whose formulas were not at hand.
    """
    assert seen.surface is not None
    plan, theta = seen.round.plan, seen.model(seen.round.before)
    made = (partial(moved, theta, difference) for difference in seen.differences.values())
    models = [partial(seen.model, seen.round.before), partial(seen.model, seen.round.state), *made]
    mine = [seen.surface.at(make())["accuracy"] for make in models[plan.team.rank :: plan.team.size]]
    parts = plan.team.gather(mine)
    before, after, *local = (parts[k % plan.team.size][k // plan.team.size] for k in range(len(models)))
    mean = sum(p * accuracy for p, accuracy in zip(seen.shares, local, strict=True))
    return {"gain": after - mean, "local_change": mean - before, "local_accuracy": mean}


def weights(seen: Look, steps: int = 20) -> Measures:
    """The convex combination of the clients' models with the least loss, beside the one by p.

        best_weights   lambda = argmin over the simplex of loss(sum_i lambda_i theta_i), searched from p
        best_loss      the loss there                                   mean_loss  the loss at p
        weight_shift   sum_i |lambda_i - p_i| / 2: the share of the weight that moved

    Where the two losses are close, little can be won by weighing clients otherwise. The loss is not convex in lambda,
    so the search finds a minimum near p, and never a worse loss than that at p. It looks at test data, as no server
    could.

    After Chen et al. 2023, whose formulas were not at hand; the search is `coterie.probes.simplex.least`.
    """
    assert seen.surface is not None
    surface, theta, sent = seen.surface, seen.model(seen.round.before), list(seen.differences.values())

    def loss(shares: Tensor) -> tuple[float, Tensor]:
        value, slope = surface.gradient(moved(theta, updates.weighted(sent, shares.tolist())))
        return value, -torch.tensor([updates.inner(d, slope) for d in sent], dtype=torch.float64)

    p = torch.tensor(seen.shares, dtype=torch.float64)
    found = least(loss, p, steps)
    return {
        "mean_loss": found.first,
        "best_loss": found.value,
        "weight_shift": float((found.at - p).abs().sum() / 2),
        "best_weights": dict(zip(seen.differences, found.at.tolist(), strict=True)),
    }


def curvature(seen: Look) -> Measures:
    """The largest eigenvalue of the loss's Hessian at theta'; see `coterie.probes.curvature`."""
    assert seen.surface is not None
    return {"curvature": top(seen.surface, seen.model(seen.round.state)).value}


def moved(weights: Tree, difference: Tree) -> Tree:
    """weights - difference, where the difference has a leaf."""
    return tree.merge(weights, tree.map(lambda d, w: w - d.to(w.dtype), difference, weights))
