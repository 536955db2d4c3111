"""predictions.json: what the final model predicts on the test data, as far as the report draws it."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from coterie.core.examples import Examples
from coterie.core.tree import Tree
from coterie.experiment.settings import Settings
from coterie.loop import evaluate
from coterie.loop.plan import Plan
from coterie.objectives.kinds import find_kind
from coterie.objectives.panels import PANEL_KINDS, TWO_CLASSES, choose_rows, describe_panel

MAX_CLIENTS = 32
"""Of more clients with models of their own, nobody could read the panels."""


def describe_predictions(settings: Settings, plan: Plan, weights: Tree) -> dict[str, Any] | None:
    """Return the panel of the run's kind of task; None where the kind has none, or the run has no test data here.

    Args:
        settings: of the run, which say its kind.
        plan: of the run.
        weights: {"params", "buffers"} of the one model that all clients share.
    """
    return _describe(settings, plan, weights, plan.evaluation.test, plan.ids[0])


def describe_own_predictions(settings: Settings, plan: Plan, weights: Mapping[str, Tree]) -> dict[str, Any] | None:
    """Return a panel for each client with a model of its own, on its own test data, or else on those of all.

    None where there are none, as of pictures, or where the clients are more than a reader can take in.

    Args:
        settings, plan: see `describe_predictions`.
        weights: {"params", "buffers"} of each client's model.
    """
    if len(weights) > MAX_CLIENTS or settings.task.kind == "segmentation":
        return None
    own = plan.evaluation.own or {}
    tests = {client: own.get(client, plan.evaluation.test) for client in weights}
    panels = {client: _describe(settings, plan, weights[client], tests[client], client) for client in weights}
    found = {client: panel for client, panel in panels.items() if panel is not None}
    return {"task": next(iter(found.values()))["task"], "clients": found} if found else None


def _describe(
    settings: Settings, plan: Plan, weights: Tree, test: Examples | None, client: str
) -> dict[str, Any] | None:
    """Return the panel of a client's model on some test data."""
    name = settings.task.kind
    if not test or name is None or plan.workplace is not None or not plan.algorithm.traits.predicts:
        return None
    kind, task = find_kind(name), plan.tasks[plan.architecture(client)]
    if name not in PANEL_KINDS and task.num_classes != TWO_CLASSES:
        return None
    chosen = test.take(choose_rows(kind, len(test)))
    outputs = evaluate.predict_all(task, weights, chosen, plan.engine)
    panel = describe_panel(kind, chosen, outputs, settings.task.ignore_index)
    return {"task": name if name in PANEL_KINDS else "binary", **panel} if panel else None
