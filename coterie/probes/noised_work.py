"""What a client sends that clips and noises the gradient of each example, for attacks on it.

It is the work of a run with `[privacy] unit = "example"`; see `coterie.privacy.per_example`.

Legend: C bound on an example's gradient, z noise multiplier, n examples of the client.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import torch

from coterie.algorithms.example_privacy import queries
from coterie.core import rng, tree
from coterie.core.errors import Mistake
from coterie.core.examples import Examples
from coterie.core.task import Batch
from coterie.core.tree import Tree
from coterie.loop.example_plan import protect_plan
from coterie.loop.plan import Plan
from coterie.privacy.accountant import Event, spent
from coterie.privacy.per_example import example_gradients
from coterie.privacy.table import Privacy
from coterie.probes.local_work import LocalWork
from coterie.probes.protections import DELTA, Sight

_HIDING = Privacy(unit="example", clip_norm=1.0, noise_multiplier=1.0, delta=DELTA)


def can_hide_examples(plan: Plan) -> bool:
    """Return whether the plan's clients can give single examples a guarantee: no example touches another's gradient."""
    try:
        protect_plan(_HIDING, plan.recipe, plan.tasks, plan.initial)
    except Mistake:
        return False
    return True


def without_guarantee(plan: Plan) -> Plan:
    """Return the plan of the same clients without the guarantee of its run, if it has one."""
    tasks = {name: replace(task, gradient_rule=None) for name, task in plan.tasks.items()}
    return replace(
        plan, tasks=tasks, algorithms={name: plan.recipe(task) for name, task in tasks.items()}, privacy=None
    )


@dataclass(frozen=True)
class NoisedWork:
    """The work of a client under a guarantee for single examples.

    Attributes:
        work: the client's, without a guarantee.
        clip_norm: C. secret: of batches and noise.
        statistics_clip, statistics_share: see `coterie.privacy.table.Privacy`.
    """

    work: LocalWork
    clip_norm: float
    secret: str
    statistics_clip: float | None = None
    statistics_share: float | None = None

    def see(self, client: str, examples: Examples, multiplier: float) -> Sight:
        """Return what an attacker sees with the noise multiplier z.

        Raises:
            Mistake: the model or the algorithm mixes examples, so it has no such guarantee.
        """
        privacy = replace(
            _HIDING,
            clip_norm=self.clip_norm,
            noise_multiplier=multiplier,
            statistics_clip=self.statistics_clip,
            statistics_share=self.statistics_share,
        )
        plan = self.work.plan
        tasks, algorithms = protect_plan(privacy, plan.recipe, plan.tasks, plan.initial)
        secret = f"{self.secret} {multiplier}"
        noised = replace(plan, tasks=tasks, algorithms=algorithms, privacy=privacy, secret=secret)
        work = replace(self.work, plan=noised)
        update, cost = work.send(client, examples), _cost(work, len(examples), multiplier)
        return Sight(f"noise {multiplier:g} on examples' gradients", update, epsilon=cost)


def _cost(work: LocalWork, n: int, multiplier: float) -> float | None:
    """Return the epsilon of this work at `DELTA`; None where dp-accounting is not installed."""
    of_work = queries(work.algorithm.client.streams, n)
    try:
        return spent({Event(multiplier, probability): steps for probability, steps in of_work.items()}, DELTA)
    except Mistake:
        return None


def median_gradient_norm(work: LocalWork, examples: Examples) -> float:
    """Return the median norm of the examples' own gradients, at the weights that the server sends."""
    (task,), weights = work.plan.tasks.values(), work.weights
    x, y = work.batch(examples)
    rows = torch.arange(len(x), device=x.device)
    batch = Batch(x, y, rows, None, rng.key(work.plan.rng_seed, "attack of an update").to(x.device))
    grads, _ = example_gradients(task, weights["params"], weights["buffers"], batch, rows)
    return float(torch.stack([_norm_of(k, grads) for k in range(len(x))]).median())


def _norm_of(k: int, grads: Tree) -> torch.Tensor:
    """Return the norm of the k-th example's gradient []."""
    return tree.norm({name: g[k] for name, g in grads.items()})
