"""How a run ended, in a few numbers."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from coterie.track.rounds import Record

COLLAPSED = 0.02
"""A spread of outputs of so much or less counts as a collapse of self-supervised learning, where 1 is healthy: ours."""


def rounds_to_target(curve: Iterable[tuple[int, float | None]], target: float) -> float | None:
    """After how many rounds the test accuracy reaches `target`, by the protocol of McMahan et al. 2017, section 3.

    The curve is made monotone (the best value so far), and the crossing is interpolated linearly between the rounds
    that were evaluated. A first evaluated round that is already there counts as it is.

    Args:
        curve: (round, test accuracy), in order; None where a round was not evaluated.
        target: above 0.

    Returns:
        The number of rounds, or None if the target was not reached.

    >>> rounds_to_target([(1, 0.5), (2, 0.25), (3, None), (4, 1.0)], 0.75)
    3.0
    """
    before: tuple[int, float] | None = None
    for round, accuracy in curve:
        if accuracy is None:
            continue
        if accuracy >= target:
            if before is None:
                return float(round)
            start, low = before
            return start + (target - low) / (accuracy - low) * (round - start)
        before = (round, max(accuracy, before[1]) if before else accuracy)
    return None


def summary(
    records: Sequence[Record],
    target: float | None,
    bytes_once: Mapping[str, int] | None = None,
    clients: int | None = None,
) -> dict[str, Any]:
    """summary.json: what the rounds add up to.

    `seconds` is the sum over the rounds, evaluation and checkpoints excluded; `elapsed` includes them. `stopped` says
    why the run ended: "rounds" or "target". `bytes_once` is what was sent before the first round, to and from all
    clients together, by what it was; `bytes_up` and `bytes_down` do not count it. `clients` is how many there are. A
    self-supervised run has the last `spread` of its outputs, and whether that is a collapse.
    """
    evaluated = [r for r in records if r["test_accuracy"] is not None]
    last = evaluated[-1] if evaluated else {}
    best = max((r["test_accuracy"] for r in evaluated), default=None)
    reached = target is not None and best is not None and best >= target
    own = {name: value for name, value in last.items() if name.startswith(("own_test_", "domain_test_"))}
    return {
        "rounds": len(records),
        "seconds": sum(r["seconds"] for r in records),
        "elapsed": records[-1]["elapsed"] if records else 0.0,
        "test_accuracy": last.get("test_accuracy"),
        "test_loss": last.get("test_loss"),
        "best_test_accuracy": best,
        **own,
        **spread(records),
        "target_accuracy": target,
        "rounds_to_target": None if target is None else rounds_to_target(curve(records), target),
        "bytes_up": sum(r["bytes_up"] for r in records),
        "bytes_down": sum(r["bytes_down"] for r in records),
        "bytes_once": dict(bytes_once or {}),
        **({} if clients is None else {"clients": clients}),
        "dropped": sum(len(r["dropped"]) for r in records),
        "stopped": "target" if reached else "rounds",
    }


def spread(records: Sequence[Record]) -> dict[str, Any]:
    """The last spread of outputs on record, and whether it is a collapse; nothing where none is.

    >>> spread([{"spread": 0.9}, {"spread": 0.01}, {}])
    {'spread': 0.01, 'collapsed': True}
    """
    last = next((r["spread"] for r in reversed(records) if r.get("spread") is not None), None)
    return {} if last is None else {"spread": last, "collapsed": last <= COLLAPSED}


def curve(records: Iterable[Record]) -> list[tuple[int, float | None]]:
    """(round, test accuracy) of each round."""
    return [(r["round"], r["test_accuracy"]) for r in records]
