"""What a model learns and is judged by: the kind of task, its loss and its metrics, from what the user has chosen.

Legend: n examples, C classes.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from torch import Tensor, nn

from coterie.core.errors import Mistake
from coterie.core.task import Metric, Score
from coterie.core.task_options import TaskOptions
from coterie.objectives.classification import IGNORE, accuracy, cross_entropy
from coterie.objectives.kinds import CLASSES, KINDS, Kind, find_kind, kind_of_labels
from coterie.objectives.loss_modules import OF_CLASSES, ModuleLoss
from coterie.objectives.metrics.names import as_measure, make_metric, short_name
from coterie.objectives.task_losses import IgnoringScore, as_loss, make_loss, refuse_options

Loss = Score | nn.Module | type[nn.Module]
"""A loss as `coterie.plan` takes it."""
Metrics = Mapping[str, Any] | Sequence[str] | None
"""Metrics as `coterie.plan` takes them: by name, or the names of some."""


@dataclass(frozen=True)
class Objective:
    """A loss, and what it is about.

    Attributes:
        kind: of the task; None where a loss of the user's own says what labels mean.
        loss: the loss.
        options: of the task.
    """

    kind: Kind | None
    loss: Score
    options: TaskOptions = field(default_factory=TaskOptions)

    @property
    def reads_classes(self) -> bool:
        """Whether the loss compares scores of classes, the last dimension of the outputs, with one label for each."""
        own = self.loss.module if isinstance(self.loss, ModuleLoss) else None
        return self.loss is cross_entropy or isinstance(self.loss, IgnoringScore) or isinstance(own, OF_CLASSES)

    @property
    def ignore_index(self) -> int | None:
        """A label that counts for nothing, besides -100 of classes."""
        chosen = self.options.ignore_index
        module = self.loss.module if isinstance(self.loss, ModuleLoss) else None
        chosen = getattr(module, "ignore_index", None) if chosen is None else chosen
        return None if chosen == IGNORE and (self.kind is None or self.kind.labels == CLASSES) else chosen


def as_options(task: TaskOptions | str | None) -> TaskOptions:
    """Return options for a kind's name, for options, or for nothing.

    Raises:
        Mistake: it is something else, or there is no such kind.
    """
    if isinstance(task, TaskOptions):
        return task
    if task is None:
        return TaskOptions()
    if not isinstance(task, str):
        allowed = f'the name of a kind ({", ".join(KINDS)}), or a coterie.TaskOptions(kind="binary", ...)'
        raise Mistake(key="task", value=type(task).__name__, allowed=allowed)
    find_kind(task)
    return TaskOptions(kind=task)  # type: ignore[arg-type]


def choose_kind(options: TaskOptions, loss: Loss, x: Tensor | None, y: Tensor | None) -> Kind | None:
    """Return the kind of task; None where a loss of the user's own alone says what labels mean.

    Whole numbers are classes, and what the model gives for them decides whether they fit; floats leave a doubt where
    all of them are whole.

    Args:
        options: of the task.
        loss: a loss of the user's own; `cross_entropy` where none is given.
        x, y: examples and their labels [n, ...]; None where there are none.

    Raises:
        Mistake: the labels leave a doubt.
    """
    if options.kind is not None:
        return find_kind(options.kind)
    if loss is not cross_entropy or x is None or y is None:
        return None
    if y.is_floating_point():
        return kind_of_labels(x, y)
    return {1: KINDS["classification"], 2: KINDS["sequence"]}.get(y.dim(), KINDS["segmentation"])


def make_objective(
    kind: Kind | None, options: TaskOptions, loss: Loss, weights: Sequence[float] | None = None
) -> Objective:
    """Return the objective that a user has chosen.

    Args:
        kind: of the task.
        options: of the task.
        loss: a loss of the user's own; `cross_entropy` where none is given.
        weights: the class weights as numbers, where the options have "balanced".

    Raises:
        Mistake: there is no such loss, or two are given.
    """
    if loss is cross_entropy:
        return Objective(kind, make_loss(kind or KINDS["classification"], options, weights), options)
    if options.loss is not None:
        raise Mistake("it is given twice: as `loss`, and as the loss of `task`; keep one", key="loss")
    refuse_options(options, "a loss of your own", ("class_weights", "label_smoothing"))
    return Objective(kind, as_loss(loss), options)


def make_measures(
    objective: Objective,
    metrics: Metrics,
    outputs: int | None,
    accuracy_means_something: bool,
) -> dict[str, Score | Metric]:
    """Return the metrics by name.

    Args:
        objective: what is learned.
        metrics: those that the user has chosen. Names come in addition to what the kind is measured by anyway; a
            mapping says everything.
        outputs: how many outputs the model has, for one place; None where nobody knows.
        accuracy_means_something: whether the likeliest class of an example can be right.

    Raises:
        Mistake: there is no such metric, or not for this kind.
    """
    if isinstance(metrics, Mapping):
        measures = {name: as_measure(metric) for name, metric in metrics.items()}
        if isinstance(measures.get("accuracy"), Metric):
            raise Mistake(
                "accuracy is measured for each example; give this metric another name", key="metrics.accuracy"
            )
        return measures
    kind, names = objective.kind, list(metrics or ())
    if isinstance(metrics, str):
        raise Mistake(key="metrics", value=metrics, allowed=f'a list of names, such as ["{metrics}"]')
    if kind is None and names:
        sentence = "names of metrics need the kind of task, which a loss of your own does not say: give `task`"
        raise Mistake(sentence, key="metrics", value=names)
    base: dict[str, Score | Metric] = {}
    if kind is None or (kind.labels == CLASSES and objective.ignore_index is None):
        base = {"accuracy": accuracy} if accuracy_means_something else {}
    elif outputs is not None:
        base = {name: make_metric(name, kind, outputs, objective.ignore_index) for name in kind.metrics}
    for name in names:
        assert kind is not None
        if short_name(name) in base:
            continue
        if outputs is None:
            raise Mistake("nobody knows how many outputs the model has; give `num_classes`", key="metrics", value=name)
        base[short_name(name)] = make_metric(name, kind, outputs, objective.ignore_index)
        if short_name(name) == "accuracy" and isinstance(base["accuracy"], Metric):
            raise Mistake("accuracy is measured for each example; call this one otherwise", key="metrics", value=name)
    return base
