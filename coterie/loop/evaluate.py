"""How good a model is on the test data of all, and on each client's own.

Legend: M test examples, N clients, C classes.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field

import torch
from torch import Tensor

from coterie.core.engine import Engine, as_input
from coterie.core.errors import Mistake, require
from coterie.core.examples import Clients, Examples
from coterie.core.task import Metric, Score, Task
from coterie.core.tree import Tree
from coterie.processes.team import ALONE, Team

EachScore = dict[str, tuple[Tensor, Tensor]]
"""Score -> (sums [M], counts [M]) of each example, to be merged, weighted or averaged later.

Under `BROKEN` it is 1 or 0 and 1: whether the model's outputs for an example are not finite.
"""

BROKEN = "outputs_not_finite"


@dataclass(frozen=True)
class Scores:
    """What was measured of M examples.

    Attributes:
        each: the scores of each example.
        totals: metric -> the sum of its totals over the examples [K].
        metrics: the metrics that these are the totals of.
    """

    each: EachScore
    totals: Mapping[str, Tensor] = field(default_factory=dict)
    metrics: Mapping[str, Metric] = field(default_factory=dict)


@dataclass(frozen=True)
class Evaluation:
    """What is evaluated, and when.

    Attributes:
        test: the test data of all.
        every: evaluate every N rounds, and always after the last.
        clients: whether each client's own accuracy is measured too.
        own: each client's own test data, for clients that have some.
        shares: for clients without such data, the share of each class in a client's training data (see
            `label_shares`). A client's own accuracy is then that on `test` with the classes weighted so. A test set of
            its own would give this in expectation if clients differ in their labels alone.

    Raises:
        Mistake: `every` is below 1.
    """

    test: Examples | None = None
    every: int = 1
    clients: bool = False
    own: Mapping[str, Examples] | None = None
    shares: Mapping[str, Tensor] | None = None

    def __post_init__(self) -> None:
        require("every", self.every, self.every >= 1, "1 or more")
        if self.clients and self.own is None and self.shares is None:
            sentence = "needs test data of each client's own, or one class label per example"
            raise Mistake(sentence, key="clients", value=True)

    def due(self, round: int, last: int) -> bool:
        """Return whether this round is evaluated."""
        given = self.test is not None or self.own is not None
        return given and (round % self.every == 0 or round == last)


def scores(
    task: Task, weights: Tree, examples: Examples, engine: Engine, batch: int = 1000, team: Team = ALONE
) -> Scores:
    """Return the loss and the metrics of every example; several processes share the work.

    Collective: every process calls it, and gets the whole result.
    """
    batches = torch.split(torch.arange(len(examples)), batch)
    own = [_score_batch(task, weights, examples, rows, engine) for rows in batches[team.rank :: team.size]]
    by_rank = team.gather(own)
    parts = [by_rank[k % team.size][k // team.size] for k in range(len(batches))]
    metrics = {name: m for name, m in task.metrics.items() if isinstance(m, Metric)}
    names = ("loss", *(name for name in task.metrics if name not in metrics), BROKEN)
    return Scores(
        {
            name: (torch.cat([part.each[name][0] for part in parts]), torch.cat([part.each[name][1] for part in parts]))
            for name in names
        },
        {name: sum_totals(metric, [part.totals[name] for part in parts]) for name, metric in metrics.items()},
        metrics,
    )


@torch.no_grad()
def predict_all(task: Task, weights: Tree, examples: Examples, engine: Engine, batch: int = 1000) -> Tensor:
    """Return the model's outputs for every example [M, ...], on the CPU."""
    parts = torch.split(torch.arange(len(examples)), batch)
    inputs = (as_input(examples.batch(rows)[0], engine) for rows in parts)
    return torch.cat([task.predict(weights["params"], weights["buffers"], x).cpu() for x in inputs])


def sum_totals(metric: Metric, parts: Iterable[Tensor]) -> Tensor:
    """Return the sum of a metric's totals [K], in the order of the parts."""
    total = torch.zeros(metric.size, dtype=torch.float64)
    for part in parts:
        total += part
    return total


@torch.no_grad()
def _score_batch(task: Task, weights: Tree, examples: Examples, rows: Tensor, engine: Engine) -> Scores:
    """Return the loss and the metrics of the examples numbered `rows`."""
    x, y = examples.batch(rows)
    outputs = task.predict(weights["params"], weights["buffers"], as_input(x, engine))
    target = None if y is None else as_input(y, engine)
    measures: dict[str, Score | Metric] = {"loss": task.loss, **task.metrics}
    found = {name: _measure(name, measure, outputs, target) for name, measure in measures.items()}
    broken = _broken(outputs, len(rows))
    each = {name: pair for name, pair in found.items() if isinstance(pair, tuple)} | {
        BROKEN: (broken, torch.ones_like(broken))
    }
    return Scores(
        {name: (sums.cpu(), counts.cpu()) for name, (sums, counts) in each.items()},
        {name: totals for name, totals in found.items() if isinstance(totals, Tensor)},
    )


def _measure(name: str, measure: Score | Metric, outputs: Tensor, y: Tensor | None) -> tuple[Tensor, Tensor] | Tensor:
    """Return a score's sums and counts [B], each; or a metric's totals [K].

    Raises:
        Mistake: it has written into the outputs or the labels, which the next one gets too.
    """
    given = [x for x in (outputs, y) if isinstance(x, Tensor)]
    before = [x._version for x in given]
    found = measure.totals(outputs, y) if isinstance(measure, Metric) else measure(outputs, y)
    if [x._version for x in given] != before:
        raise Mistake(f"{name} writes into the model's outputs or the labels, which other measures read; let it copy")
    return found


def _broken(outputs: Tensor, examples: int) -> Tensor:
    """Return 1 for each example [B] with a NaN among its outputs, or with a largest output that is not finite.

    A score of -inf beside finite ones is fine: some models rule a class out so.
    """
    if not isinstance(outputs, Tensor) or not outputs.is_floating_point() or outputs.shape[:1] != (examples,):
        return torch.zeros(examples)  # the metrics refuse what they cannot read
    largest = outputs.amax(-1) if outputs.dim() > 1 and outputs.shape[-1] else outputs  # NaN where one of them is
    return (~largest.isfinite()).reshape(examples, -1).any(1).float()


def mean(scored: Scores) -> dict[str, float]:
    """Return each measure over all examples: of a score the sum of sums over the sum of counts; of a metric its value.

    A metric that is not defined for these examples is NaN.
    """
    means = {name: float(s.double().sum() / c.double().sum()) for name, (s, c) in scored.each.items() if name != BROKEN}
    return means | {name: metric.value(scored.totals[name]) for name, metric in scored.metrics.items()}


def intervals(scored: Scores) -> dict[str, tuple[float, float] | None]:
    """Return the 95 % interval of each metric that has one; None where it cannot be told."""
    return {name: m.interval(scored.totals[name]) for name, m in scored.metrics.items() if m.has_interval}


def count_broken(scored: Scores) -> int:
    """Return for how many examples the model's outputs are not finite."""
    return int(scored.each[BROKEN][0].sum())


def accuracy_by_class(scored: Scores, y: Tensor, num_classes: int) -> Tensor:
    """Return the accuracy on each class [C]; nan for a class that is not in the test data."""
    sums, counts = (v.double().cpu() for v in scored.each["accuracy"])
    known, zeros = (
        y >= 0,
        torch.zeros(num_classes, dtype=torch.float64),
    )  # a negative label marks an example that does not count
    return zeros.index_add(0, y[known], sums[known]) / zeros.index_add(0, y[known], counts[known])


def label_shares(clients: Clients, num_classes: int) -> dict[str, Tensor] | None:
    """Return client -> the share of each class in its training data, float64 [C]; None if labels are not classes.

    Labels beyond the C classes count in the size of the data, but have no share in the result.
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
    """Return sum_c share_c accuracy_c over the measured classes; nan if the client has none of them."""
    known = ~per_class.isnan()
    weight = shares[known].sum()
    return float((shares[known] * per_class[known]).sum() / weight) if weight > 0 else float("nan")


def worst_tenth(values: list[float]) -> float:
    """Return the mean over the worst tenth of the clients, or over the worst one of fewer than ten."""
    lowest = sorted(values)[: max(len(values) // 10, 1)]
    return sum(lowest) / len(lowest)
