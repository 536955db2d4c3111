"""Measures of single rounds.

theta is the server's model before a round and theta' after it. Client i sends D_i, as the server understands it, and
its model is theta_i = theta - D_i; p_i is its weighting in the mean. Leaves that an update does not carry, such as the
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
from coterie.probes import update_geometry
from coterie.probes.hessian import curvature
from coterie.probes.last_aggregate import LAST_AGGREGATE
from coterie.probes.loss_surface import Surface
from coterie.probes.simplex import minimise

Measures = Mapping[str, Any]
"""name -> a number, or None where it is not defined."""


@dataclass(frozen=True)
class RoundView:
    """What probes know of a round.

    Attributes:
        round: its record and states.
        differences: client -> {"params", "buffers"} of D_i, in the cohort's order; empty where the round reached
            nobody, or no weights were sent.
        shares: p_i [n], which sum to 1.
        surface: the loss on the probes' examples; None without test examples.
    """

    round: Round
    differences: Mapping[str, Tree]
    shares: Sequence[float]
    surface: Surface | None

    @property
    def params(self) -> list[Tree]:
        """The parameters of each client's difference D_i [n]."""
        return [difference["params"] for difference in self.differences.values()]

    def server_model(self, state: Tree) -> Tree:
        """Return {"params", "buffers"} of the server's model in a server state."""
        return self.round.plan.evaluated_weights(state, self.round.store, self.round.plan.ids[0])


def view_round(round: Round, surface: Surface | None) -> RoundView:
    """Return the differences (on the engine's device) and shares of the clients in a round that kept its updates."""
    assert round.updates is not None, "a probed round has its updates"
    deltas = {client: update["delta"] for client, update in round.updates.items() if "delta" in update}
    device, kind = round.plan.engine.device, round.plan.algorithm.server.weighting.get("delta", "one")
    here = {c: tree.map(lambda x: x.to(device), delta) for c, delta in deltas.items()}  # other processes sent some
    weightings = [float(round.client_weights[client][kind]) for client in here]
    return RoundView(round, here, [weighting / sum(weightings) for weighting in weightings], surface)


def measure_drift(view: RoundView) -> Measures:
    """Measure how far clients go and how far apart; see `coterie.probes.update_geometry.drift`."""
    return update_geometry.drift(view.params, view.shares)


def measure_diversity(view: RoundView) -> Measures:
    """Measure how little the updates have in common; see `coterie.probes.update_geometry.diversity`."""
    return {"diversity": update_geometry.diversity(view.params)}


def measure_direction(view: RoundView) -> Measures:
    """Measure the cosine between this round's aggregated difference and the last one before it.

    It is None in the first round, high where rounds go on in one direction, and negative where they swing back and
    forth (Nguyen et al.).
    """
    return {"direction": update_geometry.cosine(view.round.before[LAST_AGGREGATE], view.round.state[LAST_AGGREGATE])}


def measure_travelled(view: RoundView) -> Measures:
    """Measure |theta' - w_0|: how far the server's parameters are from where the run began."""
    (start,) = view.round.plan.initial.values()
    return {
        "travelled": update_geometry.length(tree.sub(view.server_model(view.round.state)["params"], start["params"]))
    }


def measure_gain(view: RoundView) -> Measures:
    """Measure what averaging adds to the clients' accuracy, and what local training does to it.

        local_accuracy  sum_i p_i accuracy(theta_i)
        gain            accuracy(theta') - local_accuracy
        local_change    local_accuracy - accuracy(theta)

    `gain` and `local_change` add up to the change of the global accuracy. theta' is the model that the server ends
    with, which for FedAvg is the mean of the theta_i. The processes of a run share the models.

    Collective: every process calls it.

    After Chen et al. 2023, whose formulas were not at hand.
    """
    assert view.surface is not None
    plan, theta = view.round.plan, view.server_model(view.round.before)
    clients = (partial(apply_difference, theta, difference) for difference in view.differences.values())
    models = [partial(view.server_model, view.round.before), partial(view.server_model, view.round.state), *clients]
    mine = [view.surface.at(make())["accuracy"] for make in models[plan.team.rank :: plan.team.size]]
    parts = plan.team.gather(mine)
    before, after, *local = (parts[k % plan.team.size][k // plan.team.size] for k in range(len(models)))
    mean = sum(p * accuracy for p, accuracy in zip(view.shares, local, strict=True))
    return {"gain": after - mean, "local_change": mean - before, "local_accuracy": mean}


def measure_weights(view: RoundView, steps: int = 20) -> Measures:
    """Find the average of the clients' models with the least loss, and compare it with the average by p.

        best_weights   lambda = argmin over the simplex of loss(sum_i lambda_i theta_i), searched from p
        best_loss      the loss there                                   mean_loss  the loss at p
        weight_shift   sum_i |lambda_i - p_i| / 2: the share of the weighting that moved

    Where the two losses are close, another weighting of the clients can gain little. The loss is not convex in lambda,
    so the search finds a minimum near p, whose loss is never above that at p. It uses test data, which a server would
    not have.

    After Chen et al. 2023, whose formulas were not at hand; the search is `coterie.probes.simplex.minimise`.
    """
    assert view.surface is not None
    surface, theta = view.surface, view.server_model(view.round.before)
    differences = list(view.differences.values())

    def loss(shares: Tensor) -> tuple[float, Tensor]:
        """Return the loss of the clients' average by these shares, and its gradient with respect to the shares."""
        model = apply_difference(theta, update_geometry.linear_combination(differences, shares.tolist()))
        value, slope = surface.gradient(model)
        return value, -torch.tensor([update_geometry.inner(d, slope) for d in differences], dtype=torch.float64)

    p = torch.tensor(view.shares, dtype=torch.float64)
    minimum = minimise(loss, p, steps)
    return {
        "mean_loss": minimum.first,
        "best_loss": minimum.value,
        "weight_shift": float((minimum.at - p).abs().sum() / 2),
        "best_weights": dict(zip(view.differences, minimum.at.tolist(), strict=True)),
    }


def measure_curvature(view: RoundView) -> Measures:
    """Measure the largest eigenvalue of the loss's Hessian at theta'; see `coterie.probes.hessian`."""
    assert view.surface is not None
    return {"curvature": curvature(view.surface, view.server_model(view.round.state)).value}


def apply_difference(weights: Tree, difference: Tree) -> Tree:
    """Return weights - difference; a leaf that the difference lacks stays unchanged."""
    return tree.merge(weights, tree.map(lambda d, w: w - d.to(w.dtype), difference, weights))
