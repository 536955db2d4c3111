"""What [evaluate] says about ending a run before its last round."""

from __future__ import annotations

from coterie.core.errors import Mistake
from coterie.core.toml_text import toml_text
from coterie.experiment.tables import Evaluate
from coterie.loop.plan import Plan
from coterie.objectives.metrics.names import metric_direction, short_name
from coterie.track.stopping import Goal, Stopping


def stopping_of(evaluate: Evaluate, plan: Plan) -> Stopping:
    """Return what ends a run early; its metrics are those that the plan measures."""
    target = evaluate.target or {"metric": "accuracy", "value": evaluate.target_accuracy}
    value = None if target["value"] is None else float(target["value"])
    return Stopping(
        _goal(str(target["metric"]), plan), value, _goal(_metric_to_watch(evaluate, plan), plan), evaluate.patience
    )


def further_goals(plan: Plan) -> list[Goal]:
    """Return the metrics that the plan measures besides the loss and the accuracy."""
    return [_goal(name, plan) for name in _names_of_measures(plan) if name not in ("loss", "accuracy")]


def check_stopping(evaluate: Evaluate, plan: Plan) -> None:
    """Refuse a target, or a patience, for what is not measured.

    Raises:
        Mistake: it is not.
    """
    measured = _names_of_measures(plan)
    wanted = {"target": (evaluate.target or {}).get("metric"), "patience_metric": evaluate.patience_metric}
    for key, name in wanted.items():
        if name is not None and short_name(name) not in measured:
            value = evaluate.target if key == "target" else name
            sentence = f"{toml_text(name)} is not measured; name it in `metrics`; measured are {', '.join(measured)}"
            raise Mistake(sentence, key=key, value=value, table="evaluate").in_table("evaluate")
    if not plan.algorithm.traits.predicts:
        for key in ("target", "patience", "metrics"):
            if getattr(evaluate, key) is not None:
                sentence = "the algorithm learns without labels, so nothing is measured by them; leave it out"
                raise Mistake(sentence, key=key, value=getattr(evaluate, key), table="evaluate")


def _goal(name: str, plan: Plan) -> Goal:
    name = short_name(name)
    metric = next((task.metrics.get(name) for task in plan.tasks.values()), None)
    return Goal(f"test_{name}", metric_direction(name, metric))


def _metric_to_watch(evaluate: Evaluate, plan: Plan) -> str:
    """Return the metric whose improvement is waited for."""
    if evaluate.patience_metric is not None:
        return evaluate.patience_metric
    if evaluate.target is not None:
        return str(evaluate.target["metric"])
    if evaluate.metrics:
        return evaluate.metrics[0]
    return "accuracy" if "accuracy" in _names_of_measures(plan) else "loss"


def _names_of_measures(plan: Plan) -> list[str]:
    """Return the names of what is measured on test data."""
    return list(dict.fromkeys(["loss", *(name for task in plan.tasks.values() for name in task.metrics)]))
