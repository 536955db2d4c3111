"""Labels in the form that losses of classes and flags take: int64, without a last dimension of 1.

NumPy and pandas make labels of int32, of truth values and of shape [n, 1]; which class they mean is clear.

Legend: n examples, B batch, C classes.
"""

from __future__ import annotations

from collections.abc import Mapping

from torch import Tensor

from coterie.core.examples import Examples
from coterie.core.task_options import TaskOptions
from coterie.loop.check_model import ModelTrial
from coterie.objectives import cross_entropy
from coterie.objectives.classification import LABEL_TYPES
from coterie.objectives.loss_modules import OF_CLASSES
from coterie.objectives.objective import Loss

ONE_LABEL = ("classification", "binary")
"""The kinds of task whose labels are one for each example."""


class LabelForm:
    """Brings labels into their form; a pool that many clients share is changed once, and one in its form stays.

    Attributes:
        one_each: whether an example has one label, so that [n, 1] means [n].
    """

    def __init__(self, one_each: bool) -> None:
        self.one_each, self._pools = one_each, dict[int, tuple[Tensor, Tensor]]()

    def of(self, y: Tensor) -> Tensor:
        """Return labels [n, ...] in their form; y itself if they are in it."""
        y = y.squeeze(1) if self.one_each and y.dim() == 2 and y.shape[1] == 1 else y
        is_whole = not y.is_floating_point() and not y.is_complex()
        return y.long() if is_whole and y.dtype not in LABEL_TYPES else y

    def __call__(self, client: str, examples: Examples) -> Examples:
        """Return the examples with their labels in this form, whatever client they are of."""
        if examples.y is None:
            return examples
        if id(examples.y) not in self._pools:
            self._pools[id(examples.y)] = examples.y, self.of(examples.y)  # the pool is kept, so its id stays its own
        y = self._pools[id(examples.y)][1]
        return examples if y is examples.y else Examples(examples.x, y, examples.rows)

    def of_set(self, examples: Examples | None) -> Examples | None:
        """Return examples that no client holds, with their labels in this form; None for None."""
        return None if examples is None else self("", examples)


def choose_form(options: TaskOptions, loss: Loss, trials: Mapping[str, ModelTrial]) -> LabelForm | None:
    """Return the form that the task's loss takes; None where a loss of the user's own reads labels as they are.

    Args:
        options: of the task.
        loss: a loss of the user's own; `cross_entropy` where none is given.
        trials: what the models did on a few examples.
    """
    of_classes = loss is cross_entropy or isinstance(loss, OF_CLASSES)
    trial = next(iter(trials.values()), None)
    if trial is None or trial.y is None or not (of_classes or options.kind is not None):
        return None
    has_row_of_scores = isinstance(trial.outputs, Tensor) and trial.outputs.dim() == len(("B", "C"))
    by_outputs = options.kind is None and has_row_of_scores and not trial.y.is_floating_point()
    return LabelForm(options.kind in ONE_LABEL or by_outputs)
