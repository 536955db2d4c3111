"""The accuracy matrix: every model on every client's own test data.

It shows whether a client's model serves the others. A domain is a client's kind of data, as in its own test data.

Legend: N clients, R models, which are N, or 1 if all clients share one.
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

MAX_DOMAINS = 32
"""With more domains there is no matrix: a round's record would hold N x N numbers that nobody can read."""

Matrix = list[list[float | None]]
"""[R, N] accuracies; None for a client without test data of its own."""


def domain_clients(plan: Plan) -> list[str]:
    """Return the clients on whose own test data models are measured, in order; empty if there is no matrix."""
    own, algorithm = plan.evaluation.own, plan.algorithm
    wanted = algorithm.traits.own_models or algorithm.traits.pooled or plan.evaluation.clients
    if own is None or not wanted or not all("accuracy" in task.metrics for task in plan.tasks.values()):
        return []
    if algorithm.traits.pooled:
        return [name for name in own if name not in plan.ids] if len(own) <= MAX_DOMAINS + 1 else []
    return list(plan.ids) if len(plan.ids) <= MAX_DOMAINS else []


def accuracy_row(
    plan: Plan, task: Task, weights: Tree, names: Sequence[str], on_all: evaluate.Scores | None
) -> list[float | None]:
    """Return a model's accuracy on each domain [N].

    `on_all` are its scores on the test data of all; the scores on a part of these data are taken from them.
    """
    own = plan.evaluation.own or {}
    return [_accuracy(plan, task, weights, own.get(name), on_all) for name in names]


def summarise(matrix: Matrix) -> dict[str, float | Matrix | None]:
    """Return the matrix, its mean, and the mean over models of each one's worst domain; empty below two domains.

    Every domain counts alike in the mean.
    """
    rows = [[accuracy for accuracy in row if accuracy is not None] for row in matrix]
    if any(len(row) < 2 for row in rows):
        return {}
    return {
        "domain_test_accuracy": sum(sum(r) / len(r) for r in rows) / len(rows),
        "domain_test_accuracy_worst": sum(min(r) for r in rows) / len(rows),
        "accuracy_matrix": matrix,
    }


def _accuracy(
    plan: Plan, task: Task, weights: Tree, own: Examples | None, on_all: evaluate.Scores | None
) -> float | None:
    """Return a model's accuracy on one client's own test data; None if there are none."""
    if own is None or not len(own):
        return None
    scores = (
        None if on_all is None or plan.evaluation.test is None else _scores_of_part(on_all, plan.evaluation.test, own)
    )
    accuracy = evaluate.mean(scores or evaluate.scores(task, weights, own, plan.engine))["accuracy"]
    return None if math.isnan(accuracy) else accuracy


def _scores_of_part(scores: evaluate.Scores, whole: Examples, part: Examples) -> evaluate.Scores | None:
    """Return the scores of `part`, from those of `whole`; None unless its examples are among these, in one pool."""
    if part.x is not whole.x or part.y is not whole.y:
        return None
    place = torch.full((len(whole.x),), -1)
    place[_rows(whole)] = torch.arange(len(whole))
    at = place[_rows(part)]
    if bool((at < 0).any()):
        return None
    return evaluate.Scores({name: (s[at], c[at]) for name, (s, c) in scores.each.items()})


def _rows(examples: Examples) -> Tensor:
    """Return the rows of the pool that these examples are."""
    return torch.arange(len(examples.x)) if examples.rows is None else examples.rows
