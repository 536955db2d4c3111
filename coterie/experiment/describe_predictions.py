"""predictions.json: what the final model predicts on the test data, as far as the report draws it."""

from __future__ import annotations

from typing import Any

from coterie.core.tree import Tree
from coterie.experiment.settings import Settings
from coterie.loop import evaluate
from coterie.loop.plan import Plan
from coterie.objectives.kinds import find_kind
from coterie.objectives.panels import PANEL_KINDS, choose_rows, describe_panel


def describe_predictions(settings: Settings, plan: Plan, weights: Tree) -> dict[str, Any] | None:
    """Return the panel of the run's kind of task; None where the kind has none, or the run has no test data here.

    Args:
        settings: of the run, which say its kind.
        plan: of the run.
        weights: {"params", "buffers"} of the one model that all clients share.
    """
    test, name = plan.evaluation.test, settings.task.kind
    if test is None or plan.workplace is not None or not plan.algorithm.traits.predicts or name not in PANEL_KINDS:
        return None
    kind = find_kind(name)
    chosen = test.take(choose_rows(kind, len(test)))
    outputs = evaluate.predict_all(plan.tasks[plan.architecture(plan.ids[0])], weights, chosen, plan.engine)
    panel = describe_panel(kind, chosen, outputs, settings.task.ignore_index)
    return {"task": kind.name, **panel} if panel else None
