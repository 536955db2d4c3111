"""A round under a guarantee for clients: each update is bounded, their sum gets noise, and nothing else is used.

    D_i  = the update of client i as a difference, scaled down to the norm C            `coterie.privacy.bounded_sum`
    U    = (sum_i D_i + N(0, (z C)^2)) / n                                              `aggregate_privately`

n is the number of clients that a round asks on average, not of those that answered: a client that drops out, is late or
is refused adds zeros, and so it weakens nothing. In a round that nobody answered, the noise alone is the update. All
clients count alike. `next_state` gets the expected numbers too.

With where = "clients" each client bounds its own update and adds its share of the noise
(`coterie.loop.private_client`), and a round with too few of them changes nothing.

McMahan, Ramage, Talwar, Zhang: Learning Differentially Private Recurrent Language Models, ICLR 2018, Algorithm 1, with
the estimator f_f of its section 2 (fixed denominators).

Legend: N clients, n of a cohort on average, C bound, z noise multiplier.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from dataclasses import replace

import torch

from coterie.core import tree
from coterie.core.algorithm import PrivatePart, RoundInfo, Weighting
from coterie.core.engine import Job, Reply
from coterie.core.examples import Examples
from coterie.core.normaliser import statistic_names
from coterie.core.secret_draws import gaussian, join_purpose
from coterie.core.transforms import identity
from coterie.core.tree import Tree
from coterie.loop.jobs import Assignment
from coterie.loop.plan import Plan
from coterie.loop.private_client import STATE, deviations, limit_of, noise_key
from coterie.loop.private_plan import bounds_of, check_parts, clients_asked, count_noise, least_reached
from coterie.loop.tally import Tally
from coterie.loop.template import Templates
from coterie.privacy.bounded_sum import BoundedSum
from coterie.privacy.noise import add_noise
from coterie.processes.team import sum_trees

MAX_FALL = 0.1
"""A BatchNorm layer's variance falls to this share of itself at most in a round, since noise could make it negative."""


def initial_bound(plan: Plan) -> Tree:
    """Return what the server's state has beside the algorithm's: the first bound, where it adapts."""
    privacy = plan.guarantee
    if privacy is None or privacy.clip == "fixed":
        return {}
    return {STATE: {"clip": torch.tensor(privacy.clip_norm, dtype=torch.float64)}}


def without_bound(state: Tree) -> Tree:
    """Return the server's state as the algorithm knows it."""
    return {name: part for name, part in state.items() if name != STATE}


def aggregate_privately(
    plan: Plan, number: int, state: Tree, broadcast: Tree, replies: Iterable[Reply], tally: Tally
) -> tuple[Tree | None, Tree]:
    """Return the noisy mean of a round's bounded updates, and the state's own part with the next bound.

    Collective: every process calls it.

    Args:
        plan: in this round.
        number: the round's.
        state: the server's, with its own part where the bound adapts.
        broadcast: what the clients were sent.
        replies: those that count, as they come; of this process.
        tally: what was counted; it gets what the other processes counted.

    Returns:
        The aggregate, or None where clients add the noise and too few of them did; and the state's own part.

    Raises:
        Mistake: the algorithm does not protect all parts of its updates.
    """
    privacy, protected = plan.guarantee, plan.algorithm.server.private
    assert privacy is not None, "a guarantee is given"
    assert isinstance(protected, Mapping), "the plan was checked"
    parts = check_parts(plan)
    expected = clients_asked(plan)
    limit, bounds = limit_of(plan, state), bounds_of(privacy, parts)
    at_server = privacy.where == "server"
    total = BoundedSum((bounds or limit) if at_server else math.inf)
    for reply in replies:
        total.add(_differences(protected, reply.update, broadcast))
    tally.merge(plan.team)
    if not at_server and tally.reached < least_reached(privacy, expected):
        tally.reject(f"only {tally.reached} clients added their noise, and {least_reached(privacy, expected)} must")
        return None, initial_bound(plan) and {STATE: state[STATE]}
    like = _differences(protected, _honest_update(plan, number, broadcast), broadcast)
    zeros = tree.map(lambda x: torch.zeros_like(x, dtype=torch.float64), like)
    summed, surplus = sum_trees(plan.team, zeros if total.total is None else total.total, total.surplus)
    return release_sum(plan, number, state, broadcast, summed, surplus)


def release_sum(
    plan: Plan,
    number: int,
    state: Tree,
    broadcast: Tree,
    summed: Tree,
    surplus: float = 0.0,
    modulus: float = math.inf,
) -> tuple[Tree, Tree]:
    """Return the noisy mean of a round, from the sum of its bounded differences, and the state's own part.

    Args:
        plan: in this round.
        number: the round's.
        state: the server's, with its own part where the bound adapts.
        broadcast: what the clients were sent.
        summed: float64; with noise already where the clients add it.
        surplus: see `BoundedSum`.
        modulus: that of a secure sum, whose numbers are known up to multiples of it. A client that sends garbage can
            shift the sum to where it wraps around, and then another one's update could move what is decoded by the
            whole modulus. So the noisy sum is reduced again: that is a function of the true sum plus the noise.
    """
    privacy, protected = plan.guarantee, plan.algorithm.server.private
    assert privacy is not None, "a guarantee is given"
    assert isinstance(protected, Mapping), "the plan was checked"
    expected, limit, key = clients_asked(plan), limit_of(plan, state), noise_key(plan, number, "server")
    if privacy.where == "server":
        bounds = bounds_of(privacy, summed)
        summed = add_noise(summed, deviations(plan, bounds, limit, expected, summed), key)
        if math.isfinite(modulus):
            summed = tree.map(lambda x: x - modulus * torch.floor(x / modulus + 0.5), summed)
    like = _differences(protected, _honest_update(plan, number, broadcast), broadcast)
    mean = tree.map(lambda s, x: (s / expected).to(x.dtype), summed, like)
    aggregate = {part: protected[part].restore(mean[part], broadcast) for part in mean}
    return aggregate, _next_bound(plan, limit, surplus, expected, key)


def private_info(plan: Plan, info: RoundInfo) -> RoundInfo:
    """Return what the server's update is told of a round: the expected numbers, whoever answered."""
    expected = clients_asked(plan)
    weights: dict[Weighting, float] = {"examples": expected, "processed": expected, "one": expected}
    return info._replace(reached=max(round(expected), 1), weighting=weights, noisy=True)


def mend_variances(plan: Plan, before: Tree, after: Tree) -> Tree:
    """Return the server's state with the variances of its BatchNorm layers above 0, which noise may have changed."""
    old, new = before.get("buffers", {}), after.get("buffers", {})
    names = {statistic_names(layer)[1] for task in plan.tasks.values() for layer in task.batch_norms}
    names |= _variances_of_heads(new)
    mended = {name: new[name].clamp(min=MAX_FALL * old[name].clamp(min=0)) for name in names & new.keys() & old.keys()}
    return {**after, "buffers": {**new, **mended}} if mended else after


def _variances_of_heads(buffers: Tree) -> set[str]:
    """Return the variances among buffers that an algorithm's own layers have, beside the model's, as in heads.

    Nobody but the algorithm knows these layers; PyTorch's BatchNorm has three buffers of these names together.
    """
    last = statistic_names("")[1]
    layers = {name.removesuffix(last).removesuffix(".") for name in buffers if name.endswith(last)}
    return {statistic_names(layer)[1] for layer in layers if set(statistic_names(layer)) <= buffers.keys()}


def _differences(protected: Mapping[str, PrivatePart], update: Tree, broadcast: Tree) -> Tree:
    return {part: protected[part].difference(value, broadcast) for part, value in update.items()}


def _next_bound(plan: Plan, limit: float, surplus: float, expected: float, key: str) -> Tree:
    """Return the state's own part after a round: C exp(-lr (b - target)), b the noisy share of updates within C.

    Andrew et al. 2021, Algorithm 1: b = (sum_i (b_i - 1/2) + N(0, s^2)) / n + 1/2.
    """
    privacy = plan.guarantee
    assert privacy is not None, "a guarantee is given"
    if privacy.clip == "fixed":
        return {}
    noise = count_noise(privacy, expected) * float(gaussian(join_purpose(key, "count"), ()))
    share = (surplus + noise) / expected + 0.5
    target, rate = privacy.target_quantile or 0.5, privacy.clip_lr or 0.2
    step = min(max(-rate * (share - target), -20.0), 20.0)  # much noise must not overflow
    return {STATE: {"clip": torch.tensor(limit * math.exp(step), dtype=torch.float64)}}


def _honest_update(plan: Plan, number: int, broadcast: Tree) -> Tree:
    """Return zeros in the form of an honest update."""
    client = plan.ids[0]
    architecture = plan.architecture(client)
    nothing = Examples(torch.empty(1, 0))
    data = {
        name: plan.seed_set if stream.source == "seed_set" and plan.seed_set else nothing
        for name, stream in plan.algorithm.client.streams.items()
    }
    state = plan.client_state_from(client, None)["algorithm"]
    work = Assignment(Job(client, architecture, state, data, plan.seed_set, number, plan.rng_seed), {})
    form = Templates().of_round(replace(plan, codec=identity()), broadcast)(work)
    return tree.map(lambda x: torch.zeros(x.shape, dtype=x.dtype, device=plan.engine.device), form)
