"""Outputs in PyTorch's order, with the classes in the second dimension; and how many outputs and classes there are.

Legend: B batch, C classes.
"""

from __future__ import annotations

from collections.abc import Mapping

from torch import Tensor

from coterie.core.algorithm import Traits
from coterie.core.errors import Mistake
from coterie.core.examples import Examples
from coterie.loop.check_model import ModelTrial
from coterie.models.functional import move_classes_last
from coterie.models.usable_model import CLASS_AXIS
from coterie.objectives import kinds
from coterie.objectives.classification import IGNORE
from coterie.objectives.objective import Objective


def order_classes(trials: Mapping[str, ModelTrial]) -> dict[str, ModelTrial]:
    """Return the trials with the classes last, and tell the models that give them second.

    A model that does not say which order it has is understood where only PyTorch's fits: outputs [B, C, ...] for
    labels [B, ...]. Where both fit, `coterie.loop.check_model` asks. The models are the federation's own copies.
    """
    return {name: _order(trial) for name, trial in trials.items()}


def _order(trial: ModelTrial) -> ModelTrial:
    outputs, y = trial.outputs, trial.y
    if not isinstance(outputs, Tensor) or y is None or getattr(trial.model, CLASS_AXIS, None) is not None:
        return trial
    if y.dim() < 2 or y.is_floating_point() or outputs.dim() != y.dim() + 1 or y.shape == outputs.shape[:-1]:
        return trial
    if y.shape != outputs.shape[:1] + outputs.shape[2:]:
        return trial
    trial.model.class_axis = 1  # type: ignore[assignment]
    return trial._replace(outputs=move_classes_last(outputs))


def count_outputs(trials: Mapping[str, ModelTrial], objective: Objective, num_classes: int | None) -> int | None:
    """Return how many outputs the models have for one place; None where nobody knows.

    Args:
        trials: by architecture, with the classes last.
        objective: what is learned.
        num_classes: how many classes there are, where the caller says so.
    """
    trial = next(iter(trials.values()), None)
    if trial is None or trial.y is None or objective.kind is None:
        return num_classes
    if objective.kind.labels == kinds.CLASSES:
        shaped = isinstance(trial.outputs, Tensor) and trial.outputs.dim() > 1
        return trial.outputs.shape[-1] if shaped else num_classes
    return kinds.count_outputs(objective.kind, trial.y, None)


def require_classes_for(traits: Traits, kind: kinds.Kind | None) -> None:
    """Refuse a task without classes for an algorithm that takes outputs for scores of classes.

    Raises:
        Mistake: it is one.
    """
    if traits.needs_classes and kind is not None and kind.labels != kinds.CLASSES:
        raise Mistake(
            f"the algorithm compares posteriors, scores of classes of which one is right, and a {kind.name} task has "
            'none; choose another algorithm, or for two classes the kind "classification"',
            key="kind",
            value=kind.name,
        )


def count_classes(test: Examples | None, objective: Objective) -> int | None:
    """Return the highest test label plus 1; None without whole numbers of classes."""
    kind = objective.kind
    if kind is not None and (kind.labels == kinds.NUMBERS or kind.name == "multilabel"):
        return None
    if kind is not None and kind.name == "binary":
        return 2
    if test is None or test.y is None or test.y.is_floating_point() or not len(test):
        return None
    ignored = objective.ignore_index
    y = test.y if ignored is None else test.y[test.y != ignored]
    return int(y.max()) + 1 if y.numel() and int(y.max()) != IGNORE else None
