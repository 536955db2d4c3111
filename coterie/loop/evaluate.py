"""How good a model is, on the test data of all and on each client's own.

Legend: M test examples, N clients, C classes.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import torch
from torch import Tensor

from coterie.core.engine import Engine, as_input
from coterie.core.errors import Mistake
from coterie.core.examples import Clients, Examples
from coterie.core.task import Task
from coterie.core.tree import Tree
from coterie.processes.team import ALONE, Team

Scores = dict[str, tuple[Tensor, Tensor]]
"""Metric -> (sums [M], counts [M]) per example: what is merged, weighted or averaged later."""


@dataclass(frozen=True)
class Evaluation:
    """What is evaluated, and when.

    Attributes:
        test: the test data of all.
        every: in every how manyth round; the last round always is.
        clients: whether each client's own accuracy is measured too.
        own: each client's own test data, for those that have some.
        shares: without such data, the share of each class in a client's training data (see `label_shares`): a client's
            own accuracy is then that on `test` with the classes weighted so, which is what a test set of its own would
            give in expectation where clients differ in their labels alone.

    Raises:
        Mistake: `every` is below 1.
    """

    test: Examples | None = None
    every: int = 1
    clients: bool = False
    own: Mapping[str, Examples] | None = None
    shares: Mapping[str, Tensor] | None = None

    def __post_init__(self) -> None:
        if self.every < 1:
            raise Mistake(f"evaluate.every = {self.every}: it must be 1 or more")
        if self.clients and self.own is None and self.shares is None:
            raise Mistake(
                "evaluate.clients = true needs test data of each client's own, or one class label per example"
            )

    def due(self, round: int, last: int) -> bool:
        """Whether this round is evaluated."""
        given = self.test is not None or self.own is not None
        return given and (round % self.every == 0 or round == last)


def scores(
    task: Task, weights: Tree, examples: Examples, engine: Engine, batch: int = 1000, team: Team = ALONE
) -> Scores:
    """Loss and metrics of every example. A team shares the work, and each member gets all of the result. Collective."""
    batches = torch.split(torch.arange(len(examples)), batch)
    mine = [_scored(task, weights, examples, rows, engine) for rows in batches[team.rank :: team.size]]
    everyones = team.gather(mine)
    parts = [everyones[k % team.size][k // team.size] for k in range(len(batches))]
    return {
        name: (torch.cat([part[name][0] for part in parts]), torch.cat([part[name][1] for part in parts]))
        for name in ("loss", *task.metrics)
    }


@torch.no_grad()
def _scored(task: Task, weights: Tree, examples: Examples, rows: Tensor, engine: Engine) -> Scores:
    x, y = examples.batch(rows)
    outputs = task.predict(weights["params"], weights["buffers"], as_input(x, engine))
    target = None if y is None else as_input(y, engine)
    each = {name: measure(outputs, target) for name, measure in {"loss": task.loss, **task.metrics}.items()}
    return {name: (sums.cpu(), counts.cpu()) for name, (sums, counts) in each.items()}


def mean(scored: Scores) -> dict[str, float]:
    """Each metric over all examples: the sum of sums over the sum of counts."""
    return {name: float(s.double().sum() / c.double().sum()) for name, (s, c) in scored.items()}


def by_class(scored: Scores, y: Tensor, num_classes: int) -> Tensor:
    """The accuracy on each class [C]; nan for a class that is not in the test data."""
    sums, counts = (v.double().cpu() for v in scored["accuracy"])
    known, zeros = y >= 0, torch.zeros(num_classes, dtype=torch.float64)  # a negative label marks what does not count
    return zeros.index_add(0, y[known], sums[known]) / zeros.index_add(0, y[known], counts[known])


def label_shares(clients: Clients, num_classes: int) -> dict[str, Tensor] | None:
    """client -> the share of each class in its training data, float64 [C]; None where examples have no single class
    label. Labels beyond the C classes have a share of the data too, but none in the result.
    """
    shares = {}
    for client, examples in clients.items():
        y = examples.labels()
        if y is None or y.dim() != 1 or y.is_floating_point():
            return None
        known = y[y >= 0]
        shares[client] = torch.bincount(known, minlength=num_classes)[:num_classes].double() / max(len(known), 1)
    return shares


def expected_accuracy(per_class: Tensor, shares: Tensor) -> float:
    """sum_c share_c accuracy_c over the classes that can be measured; nan where the client has none of them."""
    known = ~per_class.isnan()
    weight = shares[known].sum()
    return float((shares[known] * per_class[known]).sum() / weight) if weight > 0 else float("nan")


def worst_tenth(values: list[float]) -> float:
    """The mean over the tenth of the clients that fare worst, one at least."""
    lowest = sorted(values)[: max(len(values) // 10, 1)]
    return sum(lowest) / len(lowest)
