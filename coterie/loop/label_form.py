"""Labels in the form that losses of classes and flags take: int64, without a last dimension of 1.

NumPy and pandas make labels of int32, of truth values and of shape [n, 1]; which class they mean is clear.

Legend: n examples, B batch, C classes.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping

from torch import Tensor

from coterie.core.examples import Examples
from coterie.core.task_options import TaskOptions
from coterie.loop.check_model import ModelTrial
from coterie.objectives import cross_entropy
from coterie.objectives.classification import LABEL_TYPES
from coterie.objectives.loss_modules import OF_CLASSES
from coterie.objectives.objective import Loss

Reform = Callable[[Tensor], Tensor]

ONE_LABEL = ("classification", "binary")
"""The kinds of task whose labels are one for each example."""


def choose_form(options: TaskOptions, loss: Loss, trials: Mapping[str, ModelTrial]) -> Reform | None:
    """Return how labels [n, ...] are brought into their form; None where they are in it, or a loss of one's own reads
    them.

    Args:
        options: of the task.
        loss: a loss of the user's own; `cross_entropy` where none is given.
        trials: what the models did on a few examples.
    """
    trial = next(iter(trials.values()), None)
    of_classes = loss is cross_entropy or isinstance(loss, OF_CLASSES)
    if trial is None or trial.y is None or not (of_classes or options.kind is not None):
        return None
    y, whole = trial.y, not trial.y.is_floating_point()
    flat = isinstance(trial.outputs, Tensor) and trial.outputs.dim() == 2
    one_each = options.kind in ONE_LABEL or (options.kind is None and whole and of_classes and flat)
    drops = one_each and y.dim() == 2 and y.shape[1] == 1
    casts = whole and not y.is_complex() and y.dtype not in LABEL_TYPES
    if not drops and not casts:
        return None
    return lambda y: _cast(y.squeeze(1) if drops and y.dim() == 2 else y, casts)


def _cast(y: Tensor, casts: bool) -> Tensor:
    return y.long() if casts else y


class Reformed:
    """Examples with their labels in another form; a pool that many clients share is changed once."""

    def __init__(self, form: Reform) -> None:
        self.form, self._pools = form, dict[int, tuple[Tensor, Tensor]]()

    def __call__(self, client: str, examples: Examples) -> Examples:
        """Return the examples, whatever client they are of."""
        if examples.y is None:
            return examples
        known = self._pools.setdefault(id(examples.y), (examples.y, self.form(examples.y)))  # kept, so ids stay theirs
        return Examples(examples.x, known[1], examples.rows)

    def of(self, examples: Examples | None) -> Examples | None:
        """Return the examples; None for None."""
        return None if examples is None else self("", examples)
