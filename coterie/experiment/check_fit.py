"""Check that the parts of a federation fit together, before its run begins."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import torch

from coterie.core import tree
from coterie.core.aggregators import Sum
from coterie.core.errors import Mistake, mistakes_in, reason
from coterie.core.rng import generator, key
from coterie.core.task import Task
from coterie.core.tree import Tree
from coterie.data import Source
from coterie.experiment.settings import Settings, model_names
from coterie.loop import evaluate
from coterie.loop.plan import Plan


def check_fit(settings: Settings, plan: Plan, source: Source) -> None:
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
    with mistakes_in("cohort"):
        cohort = plan.cohort_size()
    with mistakes_in("attack"):
        for client in (plan.ids[0], *sorted(plan.attackers())[:1]):
            plan.data(client)
    with mistakes_in("aggregation"):
        if plan.aggregator != Sum():
            _check_cohort(plan, cohort)
    for model, (architecture, task) in zip(model_names(settings), plan.tasks.items(), strict=True):
        _check_model(model, task, plan.initial[architecture], plan, source)


def _check_cohort(plan: Plan, cohort: int) -> None:
    """Let a robust rule refuse a cohort with too few updates."""
    draw = generator("check")
    updates: list[Tree] = [{"w": torch.randn(2, generator=draw)} for _ in range(cohort)]
    plan.aggregator.combine(updates, [1.0] * cohort, key("check"))


def _check_model(name: str, task: Task, weights: Tree, plan: Plan, source: Source) -> None:
    """Run one forward and one evaluation on two examples."""
    few = source.train.take(torch.arange(min(2, len(source.train))))
    x, y = few.tensors()
    tokens = "" if x.is_floating_point() else ", which are whole numbers like tokens, not floats"
    x = x.to(plan.engine.device, plan.engine.dtype if x.is_floating_point() else x.dtype)
    with _errors_of_model(name, f"cannot take examples of shape {list(x.shape[1:])}{tokens}"):
        outputs = task.predict(weights["params"], weights["buffers"], x)
        _check_classes(name, outputs, source)
        task.apply(tree.clone(weights["params"]), weights["buffers"], x, None, key("check"))
    if plan.algorithm.traits.predicts:
        labels = f"labels of shape {[] if y is None else list(y.shape[1:])}"
        with _errors_of_model(name, f"gives no outputs that fit {labels}", "another, or give each example one class"):
            evaluate.scores(task, weights, few, plan.engine)


@contextmanager
def _errors_of_model(name: str, problem: str, instead: str = "another") -> Iterator[None]:
    """Turn errors that a model raises into one sentence about the model."""
    try:
        yield
    except Mistake as mistake:
        raise mistake.in_table("model") from mistake.__cause__
    except (RuntimeError, ValueError, IndexError, TypeError, NotImplementedError) as error:
        raise Mistake(
            f"the model {problem} ({reason(error)}); choose {instead}", key="name", value=name, table="model"
        ) from error


def _check_classes(name: str, outputs: torch.Tensor, source: Source) -> None:
    if source.num_classes is not None and outputs.shape[-1] < source.num_classes:
        raise Mistake(
            f"the model gives {outputs.shape[-1]} outputs for {source.num_classes} classes; let it take num_classes",
            key="name",
            value=name,
        )
