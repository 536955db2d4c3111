"""Check that the parts of a federation fit together, before its run begins."""

from __future__ import annotations

import torch

from coterie.core.aggregators import Sum
from coterie.core.errors import Mistake, mistakes_in
from coterie.core.rng import generator, key
from coterie.core.tree import Tree
from coterie.experiment.settings import Settings
from coterie.experiment.stop_early import check_stopping
from coterie.loop.plan import Plan


def check_fit(settings: Settings, plan: Plan) -> None:
    """Check that the parts of a plan fit together.

    Raises:
        Mistake: they do not.
    """
    name = settings.algorithm["name"]
    if len(plan.tasks) > 1 and not plan.algorithm.traits.own_models:
        choice = "clients" if "clients" in settings.model else "names"
        raise Mistake(
            f"{name} has one model for all clients; give `name`, or choose an algorithm by which each has its own",
            key=choice,
            value=settings.model[choice],
            table="model",
        )
    target = settings.evaluate.target_accuracy
    if target is not None and not plan.algorithm.traits.predicts:
        raise Mistake(
            f"{name} trains no classifier that could reach it; leave it out",
            key="target_accuracy",
            value=target,
            table="evaluate",
        )
    if target is not None and any("accuracy" not in task.metrics for task in plan.tasks.values()):
        raise Mistake(
            "no accuracy is measured, since the model's outputs and the labels do not say which class is right; leave "
            "it out",
            key="target_accuracy",
            value=target,
            table="evaluate",
        )
    check_stopping(settings.evaluate, plan)
    with mistakes_in("cohort"):
        cohort = plan.cohort_size()
    with mistakes_in("attack"):
        for client in (plan.ids[0], *sorted(plan.attackers())[:1]):
            plan.data(client)
    with mistakes_in("aggregation"):
        if plan.aggregator != Sum():
            _check_cohort(plan, cohort)


def _check_cohort(plan: Plan, cohort: int) -> None:
    """Let a robust rule refuse a cohort with too few updates."""
    draw = generator("check")
    updates: list[Tree] = [{"w": torch.randn(2, generator=draw)} for _ in range(cohort)]
    plan.aggregator.combine(updates, [1.0] * cohort, key("check"))
