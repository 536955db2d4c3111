"""Every model on every client's own test data: whether what one client learned serves the others.

A domain is a client's own kind of data, as its own test data show it.

Legend: N clients, R models: N of them, or one that is everybody's.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from torch import Tensor

from coterie.core.examples import Examples
from coterie.core.task import Task
from coterie.core.tree import Tree
from coterie.loop import evaluate
from coterie.loop.plan import Plan

MOST = 32
"""Domains up to which the matrix is measured: a round's record would hold N x N numbers, and nobody could read them."""

Matrix = list[list[float | None]]
"""[R, N] accuracies; None where a client has no test data of its own."""


def domains(plan: Plan) -> list[str]:
    """The clients on whose own test data models are to be measured, in order; none where that is not wanted."""
    own, algorithm = plan.evaluation.own, plan.algorithm
    wanted = algorithm.traits.own_models or algorithm.traits.pooled or plan.evaluation.clients
    if own is None or not wanted or not all("accuracy" in task.metrics for task in plan.tasks.values()):
        return []
    if algorithm.traits.pooled:
        return [name for name in own if name not in plan.ids] if len(own) <= MOST + 1 else []
    return list(plan.ids) if len(plan.ids) <= MOST else []


def row(
    plan: Plan, task: Task, weights: Tree, names: Sequence[str], on_all: evaluate.Scores | None
) -> list[float | None]:
    """A model's accuracy on each domain [N]. `on_all` are its scores on the test data of all, from which those on a
    part of them are taken.
    """
    own = plan.evaluation.own or {}
    return [_accuracy(plan, task, weights, own.get(name), on_all) for name in names]


def summary(matrix: Matrix) -> dict[str, float | Matrix | None]:
    """The matrix; its mean, in which every domain counts alike; and the mean over models of what each reaches on the
    domain where it fares worst. Nothing where there are not two domains to compare.
    """
    rows = [[a for a in of_one if a is not None] for of_one in matrix]
    if any(len(of_one) < 2 for of_one in rows):
        return {}
    return {
        "domain_test_accuracy": sum(sum(r) / len(r) for r in rows) / len(rows),
        "domain_test_accuracy_worst": sum(min(r) for r in rows) / len(rows),
        "accuracy_matrix": matrix,
    }


def _accuracy(
    plan: Plan, task: Task, weights: Tree, own: Examples | None, on_all: evaluate.Scores | None
) -> float | None:
    if own is None or not len(own):
        return None
    scored = None if on_all is None or plan.evaluation.test is None else _part(on_all, plan.evaluation.test, own)
    accuracy = evaluate.mean(scored or evaluate.scores(task, weights, own, plan.engine))["accuracy"]
    return None if math.isnan(accuracy) else accuracy


def _part(scored: evaluate.Scores, whole: Examples, part: Examples) -> evaluate.Scores | None:
    """The scores of `part` out of those of `whole`; None unless its examples are among them, in the same pool."""
    if part.x is not whole.x or part.y is not whole.y:
        return None
    place = torch.full((len(whole.x),), -1)
    place[_rows(whole)] = torch.arange(len(whole))
    at = place[_rows(part)]
    return None if bool((at < 0).any()) else {name: (s[at], c[at]) for name, (s, c) in scored.items()}


def _rows(examples: Examples) -> Tensor:
    return torch.arange(len(examples.x)) if examples.rows is None else examples.rows
