"""What can only be seen once all parts are there, and must be seen before a run begins: whether they fit together."""

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
from coterie.experiment.refuse import shown
from coterie.experiment.settings import Settings, model_names
from coterie.loop import evaluate
from coterie.loop.plan import Plan


def fits(settings: Settings, plan: Plan, source: Source) -> None:
    """Checks that a plan's parts fit together.

    Raises:
        Mistake: they do not.
    """
    if len(plan.tasks) > 1 and not plan.algorithm.traits.own_models:
        key = "clients" if "clients" in settings.model else "names"
        raise Mistake(
            f"model.{key} = {shown(settings.model[key])}: {settings.algorithm['name']} has one model for all clients; "
            "give model.name, or choose an algorithm by which each has its own"
        )
    target = settings.evaluate.target_accuracy
    if target is not None and not plan.algorithm.traits.predicts:
        name = settings.algorithm["name"]
        raise Mistake(
            f"evaluate.target_accuracy = {target}: {name} trains no classifier that could reach it; leave it out"
        )
    cohort = plan.cohort_size()
    plan.attackers()
    plan.data(plan.ids[0])
    if plan.aggregator != Sum():
        with mistakes_in("aggregation"):
            _aggregates(plan, cohort)
    for name, (architecture, task) in zip(model_names(settings), plan.tasks.items(), strict=True):
        _learns(name, task, plan.initial[architecture], plan, source)


def _aggregates(plan: Plan, cohort: int) -> None:
    """A robust rule that needs more updates than a cohort can give says so."""
    draw = generator("check")
    updates: list[Tree] = [{"w": torch.randn(2, generator=draw)} for _ in range(cohort)]
    plan.aggregator.combine(updates, [1.0] * cohort, key("check"))


def _learns(name: str, task: Task, weights: Tree, plan: Plan, source: Source) -> None:
    """One forward and one evaluation on two examples."""
    few = source.train.take(torch.arange(min(2, len(source.train))))
    x, y = few.tensors()
    tokens = "" if x.is_floating_point() else ", which are whole numbers, as tokens are, and no floats"
    x = x.to(plan.engine.device, plan.engine.dtype if x.is_floating_point() else x.dtype)
    with _fits(name, f"cannot take examples of shape {list(x.shape[1:])}{tokens}"):
        outputs = task.predict(weights["params"], weights["buffers"], x)
        _has_classes(name, outputs, source)
        task.apply(tree.clone(weights["params"]), weights["buffers"], x, None, key("check"))
    if plan.algorithm.traits.predicts:
        labels = f"labels of shape {[] if y is None else list(y.shape[1:])}"
        with _fits(name, f"gives no outputs that fit {labels}", "another, or give each example one class"):
            evaluate.scores(task, weights, few, plan.engine)


@contextmanager
def _fits(name: str, otherwise: str, instead: str = "another") -> Iterator[None]:
    """What the model raises becomes one sentence about what it does not do."""
    try:
        yield
    except Mistake as mistake:
        raise mistake.in_table("model") from mistake.__cause__
    except (RuntimeError, ValueError, IndexError, TypeError, NotImplementedError) as error:
        why = reason(error)
        raise Mistake(f'model.name = "{name}": the model {otherwise} ({why}); choose {instead}') from error


def _has_classes(name: str, outputs: torch.Tensor, source: Source) -> None:
    if source.num_classes is not None and outputs.shape[-1] < source.num_classes:
        raise Mistake(
            f'model.name = "{name}": the model gives {outputs.shape[-1]} outputs for {source.num_classes} classes; '
            "let it take num_classes"
        )
