"""summary.json: a run's results in a few numbers."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from coterie.track.rounds_file import Record
from coterie.track.stopping import Goal, Stopping

MAX_COLLAPSED_SPREAD = 0.02
"""A spread of outputs up to this counts as a collapse of self-supervised learning; 1 is healthy. The bound is ours."""


def rounds_to_target(
    curve: Iterable[tuple[int, float | None]], target: float, higher_is_better: bool = True
) -> float | None:
    """Return after how many rounds a metric reaches `target`, as McMahan et al. 2017, section 3, count them.

    The curve is made monotone (the best value so far), and the crossing is interpolated linearly between the rounds
    that were evaluated. If the first evaluated round already reaches the target, its number is returned.

    Args:
        curve: (round, test accuracy or another metric), in order; None where a round was not evaluated.
        target: the value to reach.
        higher_is_better: whether the target is reached from below.

    Returns:
        The number of rounds, or None if the target was not reached.

    >>> rounds_to_target([(1, 0.5), (2, 0.25), (3, None), (4, 1.0)], 0.75)
    3.0
    """
    before: tuple[int, float] | None = None
    sign = 1 if higher_is_better else -1
    target = sign * target
    for round, measured in curve:
        if measured is None:
            continue
        accuracy = sign * measured
        if accuracy >= target:
            if before is None:
                return float(round)
            start, low = before
            return start + (target - low) / (accuracy - low) * (round - start)
        before = (round, max(accuracy, before[1]) if before else accuracy)
    return None


def summarise(
    records: Sequence[Record],
    target: float | None,
    bytes_once: Mapping[str, int] | None = None,
    clients: int | None = None,
    stopping: Stopping | None = None,
    goals: Sequence[Goal] = (),
) -> dict[str, Any]:
    """Return the entries of summary.json: the records of a run, added up.

    `seconds` is the sum over the rounds, without evaluation and checkpoints; `elapsed` includes them. `stopped` says
    why the run ended: "rounds", "target" or "patience". `bytes_up` and `bytes_down` do not include `bytes_once`. A
    self-supervised run has the last `spread` of its outputs, and whether that is a collapse. Whoever writes the file
    adds "failure", a sentence, where the run trained nothing.

    Args:
        records: of all rounds.
        target: the accuracy that ends the run, or None.
        bytes_once: bytes sent before the first round, to and from all clients together, by what was sent.
        clients: the number of all clients.
        stopping: what else may have ended the run.
        goals: the further metrics; each is there with its last and its best value, and as NAME_low and NAME_high with
            the ends of the last value's 95 % interval where the records have them.
    """
    evaluated = [r for r in records if r["test_accuracy"] is not None or r["test_loss"] is not None]
    last = evaluated[-1] if evaluated else {}
    best = max((r["test_accuracy"] for r in evaluated if r["test_accuracy"] is not None), default=None)
    stopping = stopping or Stopping(target=target)
    measured = [r for r in records if any(goal.value(r) is not None for goal in goals)]
    further: dict[str, Any] = {goal.measure: goal.value(measured[-1]) if measured else None for goal in goals}
    further |= {f"best_{goal.measure}": goal.best(records) for goal in goals}
    goal, aim = stopping.goal, stopping.target
    curve = [(r["round"], goal.value(r)) for r in records]
    if goal != Goal() and aim is not None:
        further["target"] = {"metric": goal.measure.removeprefix("test_"), "value": aim}
    undefined = records[-1].get("undefined") if records else None
    for measure, ends in (last.get("intervals") or {}).items():
        further[f"{measure}_low"], further[f"{measure}_high"] = ends or (None, None)
    own = {name: value for name, value in last.items() if name.startswith(("own_test_", "domain_test_"))}
    return {
        "rounds": len(records),
        "seconds": sum(r["seconds"] for r in records),
        "elapsed": records[-1]["elapsed"] if records else 0.0,
        "test_accuracy": last.get("test_accuracy"),
        "test_loss": last.get("test_loss"),
        "best_test_accuracy": best,
        **further,
        **({} if undefined is None else {"undefined": undefined}),
        **own,
        **last_spread(records),
        "target_accuracy": target,
        "rounds_to_target": None if aim is None else rounds_to_target(curve, aim, goal.higher_is_better),
        "bytes_up": sum(r["bytes_up"] for r in records),
        "bytes_down": sum(r["bytes_down"] for r in records),
        "bytes_once": dict(bytes_once or {}),
        **({} if clients is None else {"clients": clients}),
        "dropped": sum(len(r["dropped"]) for r in records),
        "stopped": stopping.why(records) or "rounds",
    }


def last_spread(records: Sequence[Record]) -> dict[str, Any]:
    """Return the last spread of outputs in the records, and whether it is a collapse; empty where there is none.

    >>> last_spread([{"spread": 0.9}, {"spread": 0.01}, {}])
    {'spread': 0.01, 'collapsed': True}
    """
    last = next((r["spread"] for r in reversed(records) if r.get("spread") is not None), None)
    return {} if last is None else {"spread": last, "collapsed": last <= MAX_COLLAPSED_SPREAD}


def accuracy_curve(records: Iterable[Record]) -> list[tuple[int, float | None]]:
    """Return (round, test accuracy) of each round."""
    return [(r["round"], r["test_accuracy"]) for r in records]
