"""How fast a run is, and what takes its time, measured in this process. No file has it: it differs from run to run."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol, runtime_checkable

from coterie.loop.plan import Round


@dataclass(frozen=True)
class Pace:
    """What the rounds of this process took, in seconds.

    Attributes:
        examples: how many examples their local steps processed; None where a secure sum hides that.
        work: the rounds without evaluation.
        evaluation: of models, and probes.
        checkpoints: waiting for them.
        other: showing rounds, and sending them to trackers.
    """

    examples: float | None = 0.0
    work: float = 0.0
    evaluation: float = 0.0
    checkpoints: float = 0.0
    other: float = 0.0

    @property
    def total(self) -> float:
        """All seconds."""
        return self.work + self.evaluation + self.checkpoints + self.other

    def add(self, round: Round, before: float) -> Pace:
        """Return the pace with a round that is on record and not yet saved; `before`: the run's seconds at the start.

        The seconds since the start that are neither work nor of an earlier checkpoint are those of evaluation.
        """
        processed = sum(weights["processed"] for weights in round.client_weights.values())
        is_hidden = self.examples is None or (round.reached > 0 and not round.client_weights)
        work = self.work + round.seconds
        return Pace(
            None if is_hidden or self.examples is None else self.examples + processed,
            work,
            max(0.0, round.elapsed - before - work - self.checkpoints - self.other),
            self.checkpoints,
            self.other,
        )

    def examples_per_second(self) -> float | None:
        """Return how many examples a second of the rounds' work processed; None where that is not known."""
        return None if self.examples is None or self.work <= 0 else self.examples / self.work

    def shares(self) -> dict[str, float]:
        """Return the share of each kind of work in all seconds; shares below half a per cent are left out.

        >>> Pace(500.0, work=6.0, evaluation=3.0, checkpoints=1.0).shares()
        {'work': 0.6, 'evaluation': 0.3, 'checkpoints': 0.1}
        """
        parts = {
            "work": self.work,
            "evaluation": self.evaluation,
            "checkpoints": self.checkpoints,
            "other": self.other,
        }
        return {name: part / self.total for name, part in parts.items() if part >= 0.005 * self.total and self.total}


@runtime_checkable
class PaceWatch(Protocol):
    """A watch of a run that is also told its pace, before each round."""

    def show_pace(self, pace: Pace) -> None:
        """The run goes on at this pace."""
